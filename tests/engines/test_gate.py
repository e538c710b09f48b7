"""No engine that is wrong survives its gate: graphs that are broken on purpose, run by onnxruntime."""

from dataclasses import replace

import numpy as np
import pytest

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.bundle.pack import PackChoice, pack
from edgeseg.cli import main
from edgeseg.engines.builder import build
from edgeseg.engines.request import Request
from edgeseg.errors import BundleError, GateError
from edgeseg.schema import Gate, Selection
from tests.engines import blocks
from tests.engines.fake_device import KEY, DeviceCompiler

pytestmark = pytest.mark.onnx
OUTLIER = 300.0  # squared it is beyond fp16, and its scale leaves nothing of the other channels in int8


def make(bundle, compiler, precision, **options):
    return build(bundle.path, compiler, Request(precision, **options), shown=False)


def engines(bundle):
    return Bundle.open(bundle.path).manifest.engines


BROKEN = [
    ("fp32", blocks.quantize_residuals, r"sam_1 of sam at 32x32: cosine 0\.[0-8]"),
    ("int8", blocks.quantize_residuals, r"sam_1 of sam at 32x32: cosine 0\.[0-8]"),
    ("fp16", blocks.written_out, r"sam_1 of sam at 32x32: cosine 0\.[0-8]"),
    ("int8", blocks.wrong_scale, r"sam_1 of sam at 32x32: cosine 0\.9[0-8]"),
    ("fp32", blocks.not_a_number, "sam_1 of sam at 32x32: it holds 1024 of 1024 values that are not finite numbers"),
    ("fp32", blocks.doubled, r"sam_2 of sam at 32x32: cosine 1\.0+, 2 times as long"),
]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_graphs_that_are_broken_below_pass_as_they_are(blocky, cpu, precision):
    assert all(item.engine.gate.passed for item in make(blocky(OUTLIER), cpu, precision))


@pytest.mark.parametrize(("precision", "breaking", "named"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_graph_is_caught_and_named_with_its_first_bad_tensor(blocky, cpu, precision, breaking, named):
    bundle = blocky(OUTLIER)
    blocks.rewrite(bundle, "sam", precision, breaking)
    with pytest.raises(GateError, match=named):
        make(bundle, cpu, precision)
    with pytest.raises(BundleError, match="failed their gate"):
        edgeseg.open(bundle.path, backend="onnxruntime", precision=precision)


def test_failing_exits_with_the_documented_code(blocky, capsys):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(0))
    assert main(["build", str(bundle.path), "--backend", "onnxruntime", "--precision", "fp16"]) == GateError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert "sam_1 of sam" in err


def test_failing_keeps_no_file_and_of_the_engines_only_that_they_failed(blocky, cpu, monkeypatch):
    monkeypatch.setattr("edgeseg.engines.cpu_form.LEAST_TOKENS", 1)
    bundle = blocky()
    make(bundle, cpu, "fp32")
    before = Bundle.open(bundle.path).manifest
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    with pytest.raises(GateError):
        make(bundle, cpu, "int8")
    after = Bundle.open(bundle.path)
    after.verify()
    assert set(after.manifest.files) == set(before.files)
    left = [engine for engine in after.manifest.engines if engine.precision == "int8"]
    assert {engine.gate and engine.gate.passed for engine in left} == {False}
    assert "sam" in {engine.graph for engine in left}
    assert all(engine.file in {graph.file for graph in after.manifest.graphs} for engine in left)
    assert [e for e in after.manifest.engines if e.precision == "fp32"] == list(before.engines)


def test_compiled_engines_that_fail_are_deleted(blocky, device):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(2))
    with pytest.raises(GateError, match="sam_2 of sam at 32x32"):
        make(bundle, DeviceCompiler(), "fp16")
    assert list(bundle.path.rglob("*.engine")) == []
    Bundle.open(bundle.path).verify()
    assert (bundle.path / f"engines/tensorrt-{KEY}/timing.cache").is_file()  # it says nothing of results


def test_engines_of_a_canvas_that_passes_stay_if_another_precision_fails(blocky, device):
    bundle = blocky()
    make(bundle, DeviceCompiler(), "fp32")
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(2))
    with pytest.raises(GateError):
        make(bundle, DeviceCompiler(), "fp16")
    with edgeseg.open(bundle.path, precision="fp32") as segmenter:
        assert segmenter.plan.precision == "fp32"


def test_engine_compiled_elsewhere_is_gated_by_the_first_open(blocky, device):
    bundle = blocky()
    make(bundle, DeviceCompiler(runs_here=False), "fp16")
    assert {engine.gate for engine in engines(bundle)} == {None}
    edgeseg.open(bundle.path, precision="fp16").close()
    assert all(engine.gate.passed for engine in engines(bundle))


def test_engine_compiled_elsewhere_that_is_wrong_is_refused_by_every_open(blocky, device):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(2))
    make(bundle, DeviceCompiler(runs_here=False), "fp16")
    with pytest.raises(GateError, match="sam_2 of sam"):
        edgeseg.open(bundle.path, precision="fp16")
    with pytest.raises(BundleError, match="failed their gate"):
        edgeseg.open(bundle.path, precision="fp16")


@pytest.mark.parametrize("key", ["tensor:sam_1", "text"])
def test_a_nan_in_the_reference_is_an_error_not_a_pass(blocky, cpu, key):
    bundle = blocky()
    with bundle.edit() as edit:
        stored = bundle.reference("32x32")[0]
        stored[key] = np.where(np.arange(stored[key].size).reshape(stored[key].shape) == 3, np.nan, stored[key])
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(BundleError, match=f"{key} of reference 0 at 32x32 holds 1 of .* not finite"):
        make(bundle, cpu, "fp32")


def test_wrong_labels_alone_name_the_tensor_that_is_furthest_off(blocky, cpu):
    bundle = blocky()
    with bundle.edit() as edit:
        stored = bundle.reference("32x32")[0]
        stored["labels"] = (stored["labels"] + 1) % 3
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(GateError, match=r"labels at 32x32: 0.00% equal.*of sam at 32x32.* is furthest off"):
        make(bundle, cpu, "int8")


def test_engine_that_a_selection_holds_outlives_the_failure_of_its_own_precision(blocky, device):
    bundle = blocky()
    make(bundle, DeviceCompiler(), "fp16")
    with bundle.edit() as edit:
        kept = next(e for e in edit.manifest.engines if e.graph == "clip_trunk")
        edit.stage("reports/auto.json").write_text("{}")
        digests = {kept.file: edit.manifest.files[kept.file].sha256}
        chosen = Selection("tensorrt", KEY, {"clip_trunk": "fp16"}, (), Gate(True, 1.0), digests, "reports/auto.json")
        edit.update(selections=(chosen,))
        for engine in edit.manifest.engines:
            edit.add_engine(replace(engine, gate=None))
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(2))
    with pytest.raises(GateError):
        make(bundle, DeviceCompiler(), "fp16")
    assert [path.name for path in bundle.path.rglob("*.engine")] == ["clip_trunk-32x32.engine"]


@pytest.fixture
def several(blocky):
    """A bundle with engines for several devices, of which this is one."""
    bundle, compiler = blocky(), DeviceCompiler(runs_here=False)
    compiler.device = "sm86+sm87-trt10.3.0"
    make(bundle, compiler, "fp16")
    return bundle


def by_device(bundle, device):
    return [engine for engine in engines(bundle) if engine.device == device]


def test_engines_for_several_devices_are_not_gated_by_those_for_this_one(several, device):
    make(several, DeviceCompiler(), "fp16")
    assert {engine.gate and engine.gate.passed for engine in by_device(several, KEY)} == {True}
    assert {engine.gate for engine in by_device(several, "sm86+sm87-trt10.3.0")} == {None}
    with edgeseg.open(several.path, precision="fp16") as segmenter:
        assert {engine.device for engine in segmenter.plan.engines.values()} == {KEY}


def test_engines_for_several_devices_do_not_fail_with_those_for_this_one(several, device):
    before = by_device(several, "sm86+sm87-trt10.3.0")
    with several.edit() as edit:
        stored = several.reference("32x32")[0]
        stored["tensor:sam_1"] = -stored["tensor:sam_1"]
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(GateError):
        make(several, DeviceCompiler(), "fp16")
    assert by_device(several, "sm86+sm87-trt10.3.0") == before


def test_packed_engines_are_verified_without_the_graphs_they_were_made_from(blocky, device, tmp_path):
    bundle = blocky()
    make(bundle, DeviceCompiler(), "fp16")
    pack(Bundle.open(bundle.path), tmp_path / "lean.bundle", PackChoice("fp16", "tensorrt"))
    assert list((tmp_path / "lean.bundle").rglob("*.onnx")) == []
    assert main(["verify", str(tmp_path / "lean.bundle"), "--precision", "fp16"]) == 0
