"""The shipped weights of LMSeg on CamVid's test split, and what w and the prompt bank make of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgeseg
from edgeseg.benches.accuracy import Options, evaluate
from edgeseg.benches.datasets import open_dataset
from edgeseg.cli import group
from edgeseg.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "weights/lmseg-tiny.safetensors"
LEARNT = 0.4894  # w, as the card says
IMAGES = 20  # of the runs that are compared with each other

pytestmark = [pytest.mark.torch, pytest.mark.onnx, pytest.mark.slow]


def verb(*words):
    group.main([str(word) for word in words], prog_name="edgeseg", standalone_mode=False)


def fusion_weight(*words):
    command = [sys.executable, ROOT / "scripts/fusion-weight", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.bundle"
    verb("export", WEIGHTS, "-o", path)
    return path


@pytest.fixture(scope="module")
def camvid(shared):
    return open_dataset("camvid-11", shared / "data/camvid", "test")


def score(path, dataset, words=None, **options):
    with edgeseg.open(path, backend="onnxruntime", precision="fp32") as segmenter:
        return evaluate(segmenter, dataset, words, Options(**options), processes=2).miou


def test_the_weights_are_half_precision_and_small():
    from safetensors import safe_open

    assert WEIGHTS.stat().st_size <= 12e6
    with safe_open(WEIGHTS, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_miou_is_what_the_card_says(bundle, camvid):
    published = json.loads((ROOT / "benches/results/lmseg_tiny_fp32.json").read_text("utf-8"))
    found = score(bundle, camvid)
    assert found == pytest.approx(published["scores"]["detectron2"]["miou_percent"], abs=0.05)


def test_clip_alone_knows_little_and_another_w_is_another_model(bundle, camvid, tmp_path):
    assert float(fusion_weight(WEIGHTS)) == pytest.approx(LEARNT, abs=1e-4)
    checkpoint, path = tmp_path / "one.safetensors", tmp_path / "one.bundle"
    fusion_weight(WEIGHTS, "1", checkpoint)
    assert float(fusion_weight(checkpoint)) == pytest.approx(1, abs=1e-4)
    verb("export", checkpoint, "-o", path)
    few = camvid.first(IMAGES)
    assert score(path, few) < score(bundle, few) / 2


def test_the_prompt_bank_says_the_same_classes(bundle, camvid, tmp_path):
    few, path = camvid.first(IMAGES), tmp_path / "bank.npz"
    verb("vocab", bundle, "--bank", "camvid-11", "-o", path)
    words = Vocabulary.load(path)
    assert words.names == few.prompts.names
    assert abs(score(bundle, few, words) - score(bundle, few)) < 0.5
