"""`edgeseg quantize --precision int8|fp8`: what is in the bundle afterwards."""

import json
import shutil

import click.testing
import numpy as np
import onnx
import pytest

from edgeseg.bundle import Bundle
from edgeseg.calibration import load_ranges
from edgeseg.calibration.cli import quantize
from edgeseg.calibration.quantize import RANGES_FILE, quantize_calibrated
from edgeseg.chains import Chains
from edgeseg.errors import BuildError, InputError, StorageError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import check_chains
from edgeseg.selection import Request, choose
from tests.calibration.photo_bundle import make, write_photos
from tests.tiny_bundle import CANVASES

pytestmark = pytest.mark.onnx
QUANTIZED = ("sam", "clip_trunk", "clip_tail")


def run(*words):
    return click.testing.CliRunner().invoke(quantize, [str(word) for word in words])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A bundle with int8 graphs, and the folder of the photos it was calibrated on."""
    folder = tmp_path_factory.mktemp("eight")
    bundle = make(folder / "toy.bundle")
    write_photos(folder / "in", 4)
    write_photos(folder / "in", 2, (32, 48))
    result = run(bundle.path, "--precision", "int8", "--images", folder / "in", "--json")
    assert result.exception is None, result.output
    return Bundle.open(bundle.path), folder / "in", json.loads(result.stdout)


@pytest.fixture
def bundle(original, tmp_path):
    return Bundle.open(shutil.copytree(original[0].path, tmp_path / "toy.bundle"))


def specs(bundle, precision, name):
    return {(g.canvas, g.form): g for g in bundle.manifest.graphs if (g.precision, g.name) == (precision, name)}


@pytest.mark.parametrize("name", QUANTIZED)
def test_int8_graph_is_there_in_both_forms_over_one_weight_file(bundle, name):
    found = specs(bundle, "int8", name)
    assert set(found) == {(canvas, form) for canvas in CANVASES for form in ("typed", "plain")}
    assert {graph.data for graph in found.values()} == {(f"graphs/int8/{name}.bin",)}
    for (_, form), graph in found.items():
        model = onnx.load(bundle.graph_files(graph))
        onnx.checker.check_model(str(bundle.graph_files(graph)), full_check=True)
        assert model.opset_import[0].version == {"typed": 19, "plain": 17}[form]
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.INT8 in kinds
        assert (onnx.TensorProto.FLOAT16 in kinds) == (form == "typed")
        assert (onnx.TensorProto.FLOAT in kinds) == (form == "plain")
    bundle.verify()


def test_both_forms_hold_the_same_integers_and_scales(bundle):
    stored = []
    for form in ("typed", "plain"):
        graph = onnx.load(bundle.graph_files(bundle.graph("sam", "int8", CANVASES[0], form))).graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        stored.append({name.removesuffix("_fp16"): np.float32(value) for name, value in values.items()})
    scales = [name for name in stored[0] if name.endswith(("_scale", "_int8"))]
    assert len(scales) > 6
    assert all(np.array_equal(stored[0][name], stored[1][name]) for name in scales)


def test_head_is_fp16_in_the_typed_form_and_the_master_itself_in_the_plain_one(bundle):
    found = specs(bundle, "int8", "head")
    assert found[CANVASES[0], "plain"].file == bundle.graph("head", "fp32", CANVASES[0]).file
    assert found[CANVASES[0], "typed"].file == "graphs/fp16/head-32x32.onnx"
    assert bundle.precisions() == ("fp32", "int8")


@pytest.mark.parametrize("name", ["score", "text"])
def test_graph_that_stays_fp32_is_there_once_and_not_copied(bundle, name):
    found = specs(bundle, "int8", name)
    assert {graph.file for graph in found.values()} == {bundle.graph(name, "fp32", None).file}
    assert set(found) == {(None, "typed")}


def test_fp16_graphs_made_later_share_the_head(bundle):
    before = bundle.manifest.files["graphs/fp16/head-32x32.onnx"]
    assert run(bundle.path, "--precision", "fp16").exception is None
    bundle = Bundle.open(bundle.path)
    assert bundle.manifest.files["graphs/fp16/head-32x32.onnx"] == before
    assert bundle.graph("head", "fp16", CANVASES[0]).file == "graphs/fp16/head-32x32.onnx"


def test_chain_on_the_cpu_runs_the_plain_form_and_is_close(bundle):
    pipeline = get_pipeline(bundle.manifest)
    plan = choose(bundle, pipeline.graphs, Request("onnxruntime", "int8"))
    assert plan.form == "plain"
    chains = Chains(bundle, plan, pipeline.graphs)
    assert {link.graph.form for link in chains.chain(CANVASES[0]).order if link.graph.name in QUANTIZED} == {"plain"}
    report = check_chains(bundle, pipeline, chains.chain, CANVASES, "int8")
    chains.close()
    encoders = [check for check in report.tensors if check.graph in ("sam", "clip_trunk")]
    assert min(check.cosine for check in encoders) > 0.998
    assert max(check.max_abs for check in encoders) > 1e-4


def test_report_names_images_and_counts(original):
    body = original[2]
    assert body["calibration"]["count"] == 6
    assert body["calibration"]["unreadable"] == 0
    sam = [item for item in body["graphs"] if item["graph"] == "sam"]
    assert [item["quantized"]["layers"] for item in sam] == [4] * 4
    assert {item["form"] for item in sam} == {"typed", "plain"}


def test_ranges_of_the_bundle_make_the_same_graphs_again(original, bundle):
    before = bundle.manifest.files
    result = run(bundle.path, "--precision", "int8")
    assert "using the ranges that" in result.stderr
    assert Bundle.open(bundle.path).manifest.files == before


def test_ranges_file_makes_the_same_graphs_in_another_copy_of_the_bundle(original, tmp_path):
    ranges = original[0].file(RANGES_FILE)
    fresh = make(tmp_path / "other.bundle")
    assert run(fresh.path, "--precision", "int8", "--ranges", ranges).exception is None
    files = Bundle.open(fresh.path).manifest.files
    assert {path: spec for path, spec in files.items() if "int8" in path} == {
        path: spec for path, spec in original[0].manifest.files.items() if "int8" in path
    }


def test_ranges_of_other_weights_are_refused(original, bundle):
    ranges = load_ranges(original[0].file(RANGES_FILE))
    graph = bundle.graph("sam", "fp32", CANVASES[0])
    weights = bundle.graph_files(graph).with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    data[-400:] = bytes(400)
    with bundle.edit() as edit:
        edit.stage(graph.data[0]).write_bytes(bytes(data))
    with pytest.raises(BuildError, match="calibrated with other weights"):
        quantize_calibrated(Bundle.open(bundle.path), "int8", ranges, lambda *_: None)


def test_without_images_the_reference_inputs_stand_in_with_a_warning(tmp_path):
    fresh = make(tmp_path / "toy.bundle")
    result = run(fresh.path, "--precision", "int8")
    assert "warning: no --images were given" in result.stderr
    ranges = load_ranges(Bundle.open(fresh.path).file(RANGES_FILE))
    assert (ranges.images.source, ranges.images.count) == ("reference", 2)


def test_unreadable_images_are_named_on_stderr(bundle, tmp_path):
    folder = write_photos(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"no picture")
    result = run(bundle.path, "--precision", "int8", "--images", folder, "--limit", "4")
    assert "1 images cannot be read and were left out: bad.png" in result.stderr
    assert load_ranges(Bundle.open(bundle.path).file(RANGES_FILE)).images.names == ("bad.png",)


def test_fp8_is_typed_only_and_quantizes_attention(bundle):
    result = run(bundle.path, "--precision", "fp8", "--json")
    sam = [item for item in json.loads(result.stdout)["graphs"] if item["graph"] == "sam"]
    assert {item["form"] for item in sam} == {"typed"}
    assert sam[0]["quantized"]["attentions"] == 1
    bundle = Bundle.open(bundle.path)
    assert specs(bundle, "fp8", "head")[CANVASES[0], "typed"].file == "graphs/fp16/head-32x32.onnx"
    pipeline = get_pipeline(bundle.manifest)
    chains = Chains(bundle, choose(bundle, pipeline.graphs, Request("onnxruntime", "fp8")), pipeline.graphs)
    report = check_chains(bundle, pipeline, chains.chain, CANVASES, "fp8")
    chains.close()
    assert min(check.cosine for check in report.tensors if check.graph in ("sam", "clip_trunk")) > 0.99


def test_layers_left_out_are_not_quantized(bundle):
    ranges = load_ranges(bundle.file(RANGES_FILE))
    site = next(iter(ranges.graphs["sam"].sites))
    done = quantize_calibrated(bundle, "int8", ranges, lambda *_: None, {"sam": {site}})
    assert [item.inserted.left_out for item in done if item.inserted and item.graph.name == "sam"] == [1] * 4


def test_full_disk_or_interrupt_while_writing_changes_nothing(bundle, monkeypatch):
    before = bundle.manifest
    ranges = load_ranges(bundle.file(RANGES_FILE))

    def press(done, _total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_calibrated(bundle, "fp8", ranges, press)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeseg.calibration.weights.WeightWriter._append", full)
    with pytest.raises(StorageError, match="the disk is full"):
        quantize_calibrated(bundle, "fp8", ranges, lambda *_: None)
    assert Bundle.open(bundle.path).manifest == before
    Bundle.open(bundle.path).verify()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--images", "in", "--ranges", "r.json"], "both --images and --ranges"),
        (["--limit", "3"], "--limit and --seed choose among images"),
        (["--ranges", "nowhere.json"], "it is no file"),
        (["--images", "nowhere"], "No such file"),
    ],
)
def test_contradicting_or_empty_options_are_refused(bundle, words, match):
    result = run(bundle.path, "--precision", "int8", *words)
    assert isinstance(result.exception, InputError)
    assert match in str(result.exception)


@pytest.mark.parametrize("precision", ["fp32", "nonsense"])
def test_other_precisions_are_refused(bundle, precision):
    result = run(bundle.path, "--precision", precision)
    assert isinstance(result.exception, BuildError)
    assert "this version makes fp16, int8, fp8" in str(result.exception)


def test_verb_prints_one_line(bundle):
    assert (
        run(bundle.path, "--precision", "int8")
        .stdout.strip()
        .endswith("6 graphs in int8; score, text stay fp32; head stay fp16")
    )
