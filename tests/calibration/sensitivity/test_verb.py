"""`edgeseg quantize` with --report, --budget and --precision mixed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import click.testing
import numpy as np
import onnx
import pytest
from PIL import Image

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.calibration.cli import quantize
from edgeseg.calibration.sensitivity.report import NAMES
from edgeseg.calibration.sensitivity.verb import REPORT_FILE
from edgeseg.chains import Chains
from edgeseg.errors import BuildError, BundleError, InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.pipelines.base import EmbeddedClasses
from edgeseg.reference import check_chains
from edgeseg.selection import Request, choose
from tests.calibration.photo_bundle import write_photos
from tests.calibration.sensitivity.toy import CANVAS, KEYS, SPOILT, make

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make(tmp_path_factory.mktemp("verb") / "toy.bundle")


@pytest.fixture
def bundle(original, tmp_path):
    write_photos(tmp_path / "photos", 4)
    return Bundle.open(shutil.copytree(original.path, tmp_path / "toy.bundle"))


@pytest.fixture(scope="module")
def mixed(original, tmp_path_factory):
    """A bundle with precision mixed, and the JSON that the verb printed."""
    folder = tmp_path_factory.mktemp("mixed")
    write_photos(folder / "photos", 4)
    bundle = Bundle.open(shutil.copytree(original.path, folder / "toy.bundle"))
    result = run(bundle.path, "--precision", "mixed", "--budget", 3, "--images", folder / "photos", "--json")
    return Bundle.open(bundle.path), json.loads(result.stdout)


def run(*words):
    result = click.testing.CliRunner().invoke(quantize, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_report_is_a_table_a_plot_and_json_beside_the_graphs(bundle, tmp_path):
    out = run(bundle.path, "--precision", "int8", "--images", tmp_path / "photos", "--report", tmp_path / "a/b").stdout
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == sorted(NAMES)
    body = json.loads((tmp_path / "a/b/sensitivity.json").read_text("utf-8"))
    assert (body["command"], body["precision"], body["pilots"], body["budget"]) == ("quantize", "int8", 4, None)
    assert sorted(one["block"] for one in body["blocks"]) == sorted(KEYS)
    assert sum(one["macs_percent"] for one in body["blocks"]) == pytest.approx(100)
    table = (tmp_path / "a/b/sensitivity.md").read_text("utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [one["block"] for one in body["blocks"]]
    assert f"most from {SPOILT}" in out
    assert Bundle.open(bundle.path).precisions() == ("fp32", "int8")


def test_plot_is_svg_with_a_bar_for_each_block(bundle, tmp_path):
    run(bundle.path, "--precision", "fp16", "--images", tmp_path / "photos", "--report", tmp_path / "report")
    root = ElementTree.parse(tmp_path / "report/sensitivity.svg").getroot()
    texts = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    body = json.loads((tmp_path / "report/sensitivity.json").read_text("utf-8"))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + len(body["blocks"])
    assert texts[1::2] == [one["block"] for one in body["blocks"]]
    assert Bundle.open(bundle.path).precisions() == ("fp32", "fp16")


def test_mixed_is_int8_but_for_the_spoilt_block(mixed):
    bundle, printed = mixed
    assert printed["precision"] == "mixed"
    assert printed["study"]["budget"]["lifted"] == [SPOILT]
    for form, others in (("plain", onnx.TensorProto.FLOAT), ("typed", onnx.TensorProto.FLOAT16)):
        graph = onnx.load(bundle.graph_files(bundle.graph("sam", "mixed", CANVAS, form))).graph
        weights = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}
        kept = {weight for name, weight in weights.items() if name.startswith("/blocks.1/")}
        quantized = {weight for name, weight in weights.items() if not name.startswith("/blocks.1/")}
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        assert {types[name] for name in kept} == {others}
        assert all(name.endswith("_dequantized") for name in quantized)
        assert len(quantized) == 4


def test_mixed_bundle_is_complete_and_says_why(mixed):
    bundle, printed = mixed
    bundle.verify()
    assert bundle.precisions() == ("fp32", "mixed")
    stored = json.loads(bundle.file(REPORT_FILE).read_text("utf-8"))
    assert stored["budget"] == printed["study"]["budget"]
    assert bundle.graph("score", "mixed", None).file == bundle.graph("score", "fp32", None).file
    assert bundle.graph("head", "mixed", CANVAS, "plain").file == bundle.graph("head", "fp32", CANVAS).file
    assert bundle.graph("head", "mixed", CANVAS, "typed").file.startswith("graphs/fp16/")


@pytest.mark.parametrize("form", ["plain", "typed"])
def test_mixed_runs_and_stays_within_its_gate(mixed, form):
    bundle, _ = mixed
    pipeline = get_pipeline(bundle.manifest)
    plan = replace(choose(bundle, pipeline.graphs, Request("onnxruntime", "mixed")), form=form)
    chains = Chains(bundle, plan, pipeline.graphs)
    report = check_chains(bundle, pipeline, chains.chain, [CANVAS], "mixed")
    chains.close()
    assert report.failures == []
    assert max(check.max_abs for check in report.tensors if check.graph == "sam") > 0


def test_the_runtime_opens_mixed(mixed):
    with edgeseg.open(mixed[0].path, backend="onnxruntime", precision="mixed") as segmenter:
        assert (segmenter.plan.precision, segmenter.plan.form) == ("mixed", "plain")


def test_the_same_command_makes_the_same_bundle(mixed, tmp_path):
    bundle, _ = mixed
    before = bundle.manifest.files
    copy = shutil.copytree(bundle.path, tmp_path / "toy.bundle")
    run(copy, "--precision", "int8", "--budget", 3, "--images", bundle.path.parent / "photos")
    assert Bundle.open(copy).manifest.files == before


def test_budget_in_miou_lifts_what_costs_it(bundle, tmp_path, monkeypatch):
    """True labels that are what fp32 gives: then fp32 has 100 %, and the loss is what int8 changes."""
    from edgeseg.calibration.sensitivity import verb

    stored = bundle.reference("32x32")[0]
    monkeypatch.setattr(verb, "_given_classes", lambda *_: (stored["text"], stored["overlap"], {"source": "given"}))
    labels = tmp_path / "labels"
    labels.mkdir()
    for photo in (tmp_path / "photos").iterdir():
        rgb = np.asarray(Image.open(photo))
        Image.fromarray(fp32_labels(bundle, rgb, stored).astype(np.uint8)).save(labels / photo.name)
    words = ["--images", tmp_path / "photos", "--labels", labels, "--classes", "a,b,c", "--budget", 20, "--json"]
    study = json.loads(run(bundle.path, "--precision", "int8", *words).stdout)["study"]
    assert study["labelled"]
    assert study["fp32_miou_percent"] == pytest.approx(100)
    assert study["budget"]["unit"] == "points_of_miou"
    assert study["budget"]["lifted"] == [SPOILT]
    assert study["budget"]["tries"][0]["loss"] > 20 >= study["budget"]["reached"]
    assert study["budget"]["typed"]["miou_percent"] >= 80


def fp32_labels(bundle, rgb, stored):
    from edgeseg.placement import Placement
    from edgeseg.reference import run_reference

    pipeline = get_pipeline(bundle.manifest)
    chains = Chains(bundle, choose(bundle, pipeline.graphs, Request("onnxruntime", "fp32")), pipeline.graphs)
    tensors = run_reference(pipeline, chains.chain(CANVAS), stored | {"image": rgb}, CANVAS)
    chains.close()
    return pipeline.evidence(tensors, (), Placement(CANVAS, CANVAS, CANVAS, True, None)).compose().labels


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--precision", "int8", "--labels", "x"], "goes with --report"),
        (["--precision", "int8", "--time-limit", "3"], "goes with --report"),
        (["--precision", "int8", "--classes", "cat"], "goes with --report"),
        (["--precision", "mixed", "--labels", "."], "name the classes with --classes"),
        (["--precision", "mixed", "--images", "nowhere"], "No such file"),
        (["--precision", "mixed", "--limit", "3"], "choose among images"),
    ],
)
def test_options_that_say_nothing_are_refused(bundle, words, found):
    with pytest.raises(InputError, match=found):
        run(bundle.path, *words)
    assert Bundle.open(bundle.path).precisions() == ("fp32",)


@pytest.mark.parametrize("named", [(), ("--classes", "cat")])
def test_classes_that_are_no_embeddings_are_refused(bundle, tmp_path, monkeypatch, named):
    monkeypatch.setattr(EmbeddedClasses, "stored", {})
    with pytest.raises(InputError, match="its classes are no embeddings"):
        run(bundle.path, "--precision", "mixed", "--images", tmp_path / "photos", *named)


def test_training_classes_that_are_no_texts_are_refused(bundle):
    from edgeseg.calibration.sensitivity import verb

    bundle.manifest.recipe.update(templates=["a {}"], text_encoder="clip", training_classes=[1])
    with pytest.raises(BundleError, match="read training_classes of the bundle's recipe"):
        verb._training_classes(bundle)


@pytest.mark.parametrize("value", ["-1", "101", "much"])
def test_a_budget_is_a_percentage(bundle, value):
    result = run(bundle.path, "--precision", "mixed", "--budget", value)
    assert result.exit_code == 2
    assert "--budget" in result.stderr


def test_a_budget_that_cannot_be_held_leaves_the_bundle_alone(bundle, tmp_path):
    before = bundle.manifest
    with pytest.raises(BuildError, match="nothing would be left"):
        run(bundle.path, "--precision", "mixed", "--budget", 0, "--images", tmp_path / "photos")
    assert Bundle.open(bundle.path).manifest == before


def test_ranges_of_the_same_images_are_used_again(bundle, tmp_path, monkeypatch):
    run(bundle.path, "--precision", "int8", "--images", tmp_path / "photos")
    from edgeseg.calibration import calibrate

    monkeypatch.setattr(calibrate, "calibrate", lambda *_: pytest.fail("calibrated again"))
    run(bundle.path, "--precision", "int8", "--images", tmp_path / "photos", "--report", tmp_path / "report")


def test_every_key_of_the_report_is_documented(mixed):
    page = (Path(__file__).resolve().parents[3] / "docs/json.md").read_text("utf-8")
    text = page.split("\n## edgeseg quantize\n")[1].split("\n## ")[0]
    parts = re.split(r"^(?:The report|A block|The budget).*:$", text, flags=re.MULTILINE)
    top, report, block, budget = (re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", p, re.M))) for p in parts)
    printed = mixed[1]
    assert top == [key for key in printed if key not in ("schema", "command", "date", "environment")]
    assert report == list(printed["study"])
    assert block == list(printed["study"]["blocks"][0])
    assert budget == list(printed["study"]["budget"])


@pytest.mark.tensorrt
def test_engines_of_mixed_are_what_the_graph_asks_for(mixed, tmp_path):
    from edgeseg.engines.builder import make_engines
    from edgeseg.engines.choice import choose as choose_compiler
    from edgeseg.engines.request import Request as Wish

    path = shutil.copytree(mixed[0].path, tmp_path / "toy.bundle")
    built = make_engines(path, choose_compiler("tensorrt_rtx", ("sm89",)), Wish("mixed"), shown=False)
    layers = next(item.engine.layers for item in built if item.engine.graph == "sam")
    assert layers["gemm"] == {"fp16": 2, "int8": 4}
