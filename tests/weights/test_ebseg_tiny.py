"""The shipped weights in every precision, on CamVid's whole test split, through the exported graphs on onnxruntime.

int8 is calibrated as published, on 64 training images; mixed on fewer, since its search runs them again and again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeseg
from edgeseg.benches.accuracy import Options, evaluate
from edgeseg.benches.datasets import open_dataset
from edgeseg.bundle import Bundle
from edgeseg.cli import group

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "weights/ebseg-tiny.safetensors"
OPTIONS = Options(resize="none", canvas=(384, 480))
PRECISIONS = ("fp32", "fp16", "int8", "mixed")
BUDGET = 0.1
"""Percent of labels: less than int8 changes, so that some blocks are lifted."""
SYNONYMS = {"car": "automobile", "tree": "foliage", "pavement": "sidewalk", "bicyclist": "cyclist"}

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]


def verb(*words):
    group.main([str(word) for word in words], prog_name="edgeseg", standalone_mode=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, shared):
    path = tmp_path_factory.mktemp("tiny") / "tiny.bundle"
    images = shared / "data/camvid/train/images"
    verb("export", WEIGHTS, "--size", "384x480", "-o", path)
    verb("quantize", path, "--precision", "fp16")
    verb("quantize", path, "--precision", "int8", "--images", images, "--limit", 64)
    verb("quantize", path, "--precision", "mixed", "--images", images, "--limit", 12, "--budget", BUDGET)
    return path


@pytest.fixture(scope="module")
def published():
    """mIoU by precision, percent: what the card says."""
    folder = ROOT / "benches/results"
    files = {precision: folder / f"ebseg_tiny_{precision}.json" for precision in PRECISIONS}
    return {
        precision: json.loads(file.read_text("utf-8"))["scores"]["detectron2"]["miou_percent"]
        for precision, file in files.items()
    }


@pytest.fixture(scope="module")
def scores(bundle, shared):
    """precision → Accuracy on the test split, unresized, at 360x480."""
    dataset = open_dataset("camvid-11", shared / "data/camvid", "test")
    made = {}
    for precision in PRECISIONS:
        with edgeseg.open(bundle, backend="onnxruntime", precision=precision) as segmenter:
            made[precision] = evaluate(segmenter, dataset, options=OPTIONS, processes=2)
    return made


def test_the_weights_are_half_precision_and_small():
    from safetensors import safe_open

    assert WEIGHTS.stat().st_size <= 12e6
    with safe_open(WEIGHTS, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_passes_its_gate(bundle, precision):
    verb("build", bundle, "--backend", "onnxruntime", "--precision", precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_miou_is_what_the_card_says(scores, published, precision):
    assert scores[precision].images == 233
    assert scores[precision].miou == pytest.approx(published[precision], abs=0.05)


@pytest.mark.parametrize(("precision", "points"), [("fp16", 0.2), ("int8", 1.0), ("mixed", 0.3)])
def test_fewer_bits_cost_little(scores, precision, points):
    assert scores[precision].images == 233
    assert abs(scores[precision].miou - scores["fp32"].miou) <= points


def test_the_budget_lifts_few_blocks_and_holds(bundle):
    report = json.loads(Bundle.open(bundle).file("reports/mixed.json").read_text("utf-8"))
    budget = report["budget"]
    assert budget["tries"][0]["loss"] > BUDGET >= budget["reached"]
    assert 0 < budget["lifted_macs_percent"] < 50


def test_classes_are_found_under_words_that_were_not_trained(bundle, shared):
    dataset = open_dataset("camvid-11", shared / "data/camvid", "test").first(30)
    names = dataset.prompts.names
    with edgeseg.open(bundle, backend="onnxruntime", precision="fp32") as segmenter:
        trained = evaluate(segmenter, dataset, options=OPTIONS).iou
        renamed = segmenter.vocabulary([SYNONYMS.get(name, name) for name in names])
        found = evaluate(segmenter, dataset, renamed, OPTIONS).iou
    for name in SYNONYMS:
        assert found[names.index(name)] >= 0.8 * trained[names.index(name)], name
