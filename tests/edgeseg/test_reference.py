from typing import Any

import numpy as np
import pytest

from edgeseg.backends.fake import FakeBackend
from edgeseg.chains import Chains
from edgeseg.closeness import sample
from edgeseg.errors import BundleError, GateError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import (
    UNDECIDED,
    LabelCheck,
    Limits,
    Report,
    TensorCheck,
    check_chains,
    check_text,
    limits,
    references,
)
from edgeseg.schema import Gate
from edgeseg.selection import Request, choose
from tests.edgeseg.tiny_bundle import CANVASES, CHAIN


def report_of(bundle, backend=None):
    plan = choose(bundle, CHAIN, Request(backend or "onnxruntime"))
    chains = Chains(bundle, plan, CHAIN)
    return check_chains(bundle, get_pipeline(bundle.manifest), chains.chain, CANVASES, "fp32")


@pytest.mark.onnx
def test_every_tensor_of_the_chain_is_compared_and_equal(tiny):
    report = report_of(tiny)
    outputs = {t.name for g in tiny.manifest.graphs if g.name != "text" for t in g.outputs}
    assert {check.tensor for check in report.tensors} == outputs | {"image_sam", "image_clip"}
    assert len(report.tensors) == 2 * 16
    assert report.failures == []
    assert [check.agreement for check in report.labels] == [1, 1]
    assert max(check.max_abs for check in report.tensors) < 1e-5


@pytest.mark.onnx
def test_wrong_numbers_are_found_and_the_graph_is_named(tiny):
    report = report_of(tiny, FakeBackend())
    assert report.failures[0].startswith("sam_2 of sam at 64x64: cosine ")
    assert not report.gate("sam", CANVASES[0]).passed
    with pytest.raises(GateError, match=r"sam_2 of sam .* \(and \d+ more\)"):
        report.require("use it", "build it")


@pytest.mark.onnx
def test_text_encoder_is_compared(tiny):
    spec = tiny.graph("text", "fp32", None)
    plan = choose(tiny, CHAIN, Request("onnxruntime"))
    good = check_text(tiny, spec, plan.open(tiny, spec))
    bad = check_text(tiny, spec, FakeBackend().open(None, spec))
    assert (good.failures, len(good.tensors), len(bad.failures)) == ([], 1, 1)


def test_bundle_without_references_is_refused(fake_bundle):
    with pytest.raises(BundleError, match="no reference tensors"):
        report_of(fake_bundle, FakeBackend())


def check(cosine: float, graph="sam", canvas="64x64", **fields) -> TensorCheck:
    return TensorCheck(canvas, 0, graph, "t", cosine, 0.0, **fields)


def report(*tensors, agreement=1.0) -> Report:
    return Report(Limits(0.99, 0.9), tensors, (LabelCheck("64x64", 0, agreement),))


@pytest.mark.parametrize(
    ("made", "gate"),
    [
        (report(check(0.995), check(0.991)), Gate(True, 0.991, 1.0)),
        (report(check(0.995), check(0.98)), Gate(False, 0.98, 1.0)),
        (report(check(0.995), agreement=0.89), Gate(False, 0.995, 0.89)),
        (report(check(0.995), check(0.5, "head")), Gate(True, 0.995, 1.0)),
        (report(check(0.995), check(0.5, canvas="64x96")), Gate(True, 0.995, 1.0)),
        (report(check(0.5, "head")), Gate(False, -1.0, 1.0)),
    ],
)
def test_gate_is_the_worst_of_the_graphs_own_tensors(made, gate):
    assert made.gate("sam", (64, 64)) == gate


def test_graph_of_any_canvas_is_judged_on_all():
    assert report(check(0.995), check(0.98, canvas="64x96")).gate("sam", None).cosine == 0.98


def test_nan_never_passes():
    assert report(check(float("nan"))).failures
    assert not report(check(float("nan"))).gate("sam", (64, 64)).passed


@pytest.mark.parametrize(("length", "passes"), [(1.0, True), (1.1, True), (0.9, True), (1.3, False), (0.7, False)])
def test_a_wrong_scale_which_no_cosine_sees_does_not_pass(length, passes):
    made = report(check(1.0, length=length))
    assert made.gate("sam", (64, 64)).passed is passes
    assert bool(made.failures) is not passes
    assert passes or f"{length} times as long" in made.failures[0]


def test_wrong_labels_name_the_tensor_that_is_furthest_off():
    made = report(check(0.995), check(0.992, "head"), check(0.5, "preprocess"), agreement=0.5)
    assert (
        made.failures[-1]
        == "labels at 64x64: 50.00% equal, 90.00% wanted; t of head at 64x64: cosine 0.992000 is furthest off"
    )


@pytest.mark.onnx
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_fails_by_name_and_has_no_labels(tiny, value):
    def broken(inputs):
        real: Any = plan.open(tiny, tiny.graph("head", "fp32", CANVASES[0])).run(inputs)
        real["mask_logits"] = real["mask_logits"].copy()
        real["mask_logits"].flat[7] = value
        return real

    plan = choose(tiny, CHAIN, Request("onnxruntime"))
    chains = Chains(tiny, plan, CHAIN)
    chain = chains.chain(CANVASES[0])
    index = next(i for i, link in enumerate(chain.order) if link.graph.name == "head")
    session = FakeBackend({"head": broken}).open(None, chain.order[index].graph)
    chain.order[index] = type(chain.order[index])(chain.order[index].graph, session)
    made = check_chains(tiny, get_pipeline(tiny.manifest), lambda _: chain, CANVASES[:1], "fp32")
    assert made.failures[0] == "mask_logits of head at 64x64: it holds 1 of 1280 values that are not finite numbers"
    assert [one.agreement for one in made.labels] == [0.0]
    assert made.bad_tensors[0].max_abs == -1


@pytest.mark.onnx
@pytest.mark.parametrize("key", ["tensor:sam_2", "text", "overlap"])
def test_a_reference_that_is_no_number_is_refused(tiny, monkeypatch, key):
    stored = tiny.reference("64x64")[0]
    stored[key] = np.full_like(stored[key], np.nan)
    monkeypatch.setattr(type(tiny), "reference", lambda self, _: [stored])
    with pytest.raises(BundleError, match=f"{key} of reference 0 at 64x64 holds .* not finite numbers"):
        report_of(tiny)


def test_several_precisions_have_the_widest_limits(fake_bundle):
    fake_bundle.manifest.recipe["gate"] = {
        "fp32": {"cosine": 0.999, "agreement": 0.5},
        "int8": {"cosine": 0.9, "agreement": 0.8},
    }
    assert limits(fake_bundle, "fp32", "int8") == Limits(0.9, 0.5)
    assert limits(fake_bundle, "fp8") == limits(fake_bundle, "mixed") == Limits(0.9, 0.8)


def test_limits_come_from_the_recipe_or_the_defaults(fake_bundle):
    fake_bundle.manifest.recipe["gate"] = {"fp32": {"cosine": 0.5, "agreement": 0.25}}
    assert limits(fake_bundle, "fp32") == Limits(0.5, 0.25)
    assert limits(fake_bundle, "int8") == Limits(0.99, 0.97)


@pytest.mark.parametrize(
    "gate", [[1], "fp32", {"fp32": 1}, {"fp32": {"cosine": 0.5}}, {"fp32": {"cosine": "x", "agreement": 1}}]
)
def test_limits_that_are_none_are_refused(fake_bundle, gate):
    fake_bundle.manifest.recipe["gate"] = gate
    with pytest.raises(BundleError, match="read gate of the bundle's recipe"):
        limits(fake_bundle, "fp32")


STORED = {
    "image": np.zeros((64, 64, 3), np.uint8),
    "labels": np.zeros((64, 64), np.uint16),
    "text": np.zeros((2, 4), np.float32),
    "overlap": np.zeros(2, np.float32),
    "tensor:sam_2": np.zeros(5, np.float32),
}


@pytest.mark.parametrize(
    ("name", "array", "found"),
    [
        ("image", None, "is missing"),
        ("labels", np.zeros((64, 64), np.float32), "another type"),
        ("labels", np.zeros((64, 32), np.uint16), "has the shape"),
        ("text", np.zeros(4, np.float32), "other axes"),
        ("tensor:sam_2", np.array(["x"]), "is <U1"),
    ],
)
def test_reference_tensors_that_are_not_as_documented_are_refused(fake_bundle, monkeypatch, name, array, found):
    cases = [{key: value for key, value in (STORED | {name: array}).items() if value is not None}]
    fake_bundle.manifest.reference["64x64"] = ("a.npz",)
    monkeypatch.setattr(type(fake_bundle), "reference", lambda self, _: cases)
    with pytest.raises(BundleError, match=f"{name} of reference 0 at 64x64 .*{found}"):
        references(fake_bundle, "64x64")


@pytest.mark.parametrize(("size", "samples"), [(1, 1), (16384, 16384), (16385, 8193), (100000, 14286)])
def test_sample_is_every_nth_value(size, samples):
    made = sample(np.arange(size).reshape(1, -1))
    assert made.shape == (samples,)
    assert made.dtype == np.float32
    assert made[-1] == (samples - 1) * -(-size // 16384)


@pytest.mark.onnx
def test_pixels_that_rounding_decides_are_not_counted(tiny, monkeypatch):
    stored = tiny.reference("64x64")[0]
    wrong = np.where(np.arange(64) < 8, UNDECIDED, (stored["labels"] + 1) % 3).astype(np.uint16)
    right = np.where(np.arange(64) < 8, UNDECIDED, stored["labels"]).astype(np.uint16)
    for labels, agreement in ((right, 1.0), (wrong, 0.0)):
        monkeypatch.setattr(type(tiny), "reference", lambda self, key, labels=labels: [{**stored, "labels": labels}])
        chains = Chains(tiny, choose(tiny, CHAIN, Request("onnxruntime")), CHAIN)
        report = check_chains(tiny, get_pipeline(tiny.manifest), chains.chain, CANVASES[:1], "fp32")
        assert [check.agreement for check in report.labels] == [agreement]
