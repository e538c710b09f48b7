"""Counting and measuring a bundle."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgeseg.benches.latency import Effort
from edgeseg.benches.latency import effort as effort_module
from edgeseg.benches.latency.subject import opened
from edgeseg.benches.machine import Conditions
from edgeseg.benches.machine.cpu import CpuUse
from edgeseg.benches.model import job as module
from edgeseg.benches.model.job import Job, count_bundle, count_plan, measure_bundle
from edgeseg.benches.model.roofline import Roofline
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, InputError
from edgeseg.schema import EngineSpec
from edgeseg.selection import Request
from tests.edgeseg.tiny_bundle import CHAIN, CLIP_WIDTH, QUERIES, SAM_WIDTH
from tests.edgeseg.vocabulary.tiny import CONTEXT, DIMENSIONS

pytestmark = pytest.mark.onnx

TOKENS, PATCHES = 16, 4  # of the canvas 64x64
BY_HAND = {
    "sam": {"weights": TOKENS * (3 * 256 * SAM_WIDTH + 4 * SAM_WIDTH**2)},
    "clip_trunk": {"weights": PATCHES * (3 * 256 * CLIP_WIDTH + CLIP_WIDTH**2)},
    "head": {
        "weights": TOKENS * SAM_WIDTH * QUERIES
        + CLIP_WIDTH * QUERIES * DIMENSIONS
        + (1 + PATCHES) * CLIP_WIDTH * 2 * QUERIES
    },
    "clip_tail": {"activations": QUERIES * PATCHES * CLIP_WIDTH, "weights": 2 * QUERIES * CLIP_WIDTH * DIMENSIONS},
    "score": {"activations": QUERIES * DIMENSIONS * 7},
}


@pytest.fixture
def bundle(tiny_path):
    return Bundle.open(tiny_path)


def test_every_graph_of_the_tiny_bundle_by_hand(bundle):
    body = count_bundle(bundle, "fp32", Job((64, 64), 7))
    assert (body["canvas"], body["classes"], body["notes"]) == ("64x64", 7, [])
    rows = {row["graph"]: row for row in body["graphs"]}
    assert list(rows) == [*CHAIN, "text"]
    for name, expected in BY_HAND.items():
        wanted = {"weights": 0, "activations": 0, "positions": 0, **expected}
        assert rows[name]["macs"] == {**wanted, "total": sum(expected.values())}
    sam = rows["sam"]
    assert sam["parameters"] == 3 * 256 * SAM_WIDTH + 4 * SAM_WIDTH**2
    assert sam["least_bytes"] == sam["weights_bytes"] + 4 * (3 * 64 * 64 + 4 * TOKENS * SAM_WIDTH)
    assert sam["flop_per_byte"] == pytest.approx(2 * sam["macs"]["total"] / sam["least_bytes"], abs=0.01)
    assert {row["operator"]: row["nodes"] for row in sam["operators"]}["Tanh"] == 4


def test_larger_canvas_and_more_classes_cost_more(bundle):
    small, large = (count_bundle(bundle, "fp32", Job(canvas, 7))["graphs"] for canvas in ((64, 64), (64, 96)))
    assert large[0]["macs"]["total"] == 1.5 * small[0]["macs"]["total"]
    many = count_bundle(bundle, "fp32", Job((64, 64), 70))["graphs"]
    assert many[4]["macs"]["total"] == 10 * small[4]["macs"]["total"]
    assert many[5] == small[5]  # the text encoder's row is of one prompt


def test_text_encoder_is_counted_for_one_prompt_of_full_length(bundle):
    row = count_bundle(bundle, "fp32", Job((64, 64), 7))["graphs"][-1]
    assert row["graph"] == "text"
    operators = {item["operator"]: item["element_operations"] for item in row["operators"]}
    assert operators["CumSum"] == CONTEXT * DIMENSIONS


@pytest.fixture
def measured(tiny_path, monkeypatch):
    monkeypatch.setattr(effort_module, "WARM_MOST_RUNS", 3)
    monkeypatch.setattr(module, "host_roofline", lambda: Roofline(1e9, 1e9, "float32", 1.0, "made up"))
    shown: list[str] = []

    def measure(**options):
        def bar(title):
            shown.append(title)
            return nullcontext(lambda done, total: None)

        with opened(tiny_path, Request("onnxruntime", threads=1), in_order=True) as subject:
            return measure_bundle(subject, Job(effort=Effort(runs=3), **options), bar)

    return measure


def test_share_of_the_roofline_follows_from_latency_and_work(measured):
    body = measured()
    for row in body["graphs"][:-1]:
        least_ms = 1e3 * max(row["macs"]["total"] / 1e9, row["least_bytes"] / 1e9)
        assert row["least_ms"] == pytest.approx(least_ms, abs=1e-4)
        assert row["roofline_percent"] == pytest.approx(100 * least_ms / row["latency_ms"], rel=0.05, abs=0.01)
        assert row["bound"] == ("arithmetic" if row["macs"]["total"] >= row["least_bytes"] else "memory")
    assert body["graphs"][-1]["latency_ms"] is None
    assert body["roofline"]["how"] == "made up"
    assert not body["trusted"]
    assert any("p99" in note for note in body["notes"])


def test_canvas_that_does_not_run_is_refused(measured):
    with pytest.raises(InputError, match="use the canvas 32x32: there is none among 64x64, 64x96"):
        measured(canvas=(32, 32))


def test_roofline_of_fewer_cores_than_the_graphs_had_is_noted():
    roofline = Roofline(1e9, 1e9, "float32", 1.0, "")

    found = SimpleNamespace(conditions=Conditions(cpu=CpuUse(2.0, None, None)))
    assert "the product kept 1.0 CPUs busy, the graphs 2.0" in next(module._doubts(roofline, found))
    found.conditions.cpu = CpuUse(1.1, None, None)
    assert list(module._doubts(roofline, found)) == []


def test_engine_that_is_onnx_is_what_is_counted(bundle):
    spec = bundle.graph("sam", "fp32", (64, 64))
    other = bundle.graph("clip_trunk", "fp32", (64, 64))
    engine = EngineSpec("onnxruntime", "cpu", "sam", "fp32", (64, 64), other.file, (), "0")
    plan = SimpleNamespace(engines={("sam", (64, 64)): engine}, backend=SimpleNamespace(name="onnxruntime"))
    assert count_plan(bundle, plan, [spec], Job((64, 64), 7))["graphs"][0]["file"] == other.file
    plan.backend.name = "tensorrt"  # its engines are no ONNX: the graph is counted
    assert count_plan(bundle, plan, [spec], Job((64, 64), 7))["graphs"][0]["file"] == spec.file


def test_file_that_is_no_onnx_or_was_left_out_is_an_error(fake_bundle):
    with pytest.raises(BundleError, match=r"count graphs/fp32/sam-64x64.onnx: onnx says"):
        count_bundle(fake_bundle, "fp32", Job((64, 64), 7))
    files = {name: spec for name, spec in fake_bundle.manifest.files.items() if "sam" not in name}
    fake_bundle.manifest = replace(fake_bundle.manifest, files=files)
    with pytest.raises(BundleError, match="was left out when the bundle was packed"):
        count_bundle(fake_bundle, "fp32", Job((64, 64), 7))
