"""The shipped weights of USE on CamVid's test split: the labelled segments, named without a SAM and without engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeseg.benches.accuracy.recall import components
from edgeseg.benches.datasets import open_dataset
from edgeseg.errors import InputError
from edgeseg.export.recipe import preset
from edgeseg.placement import place
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.segments.pooling import AreaPooling
from edgeseg.segments.runs import encode_all

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "weights/use-tiny.safetensors"
RESULT = ROOT / "benches/results/use_tiny_labelled.json"
RECIPE = preset("use-tiny")
EVERY = 40  # photos of the split, so that both drives are seen

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_the_weights_are_half_precision_and_hold_no_sam():
    from safetensors import safe_open

    assert WEIGHTS.stat().st_size <= 8e6
    with safe_open(WEIGHTS, "pt") as file:
        names = list(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"F16"}
    assert {name.split(".")[0] for name in names} == {"visual", "backbone", "use"}


def test_a_sam_has_to_be_given(tmp_path):
    from edgeseg.export.bundle import Checkpoint, export_bundle

    with pytest.raises(InputError, match=r"use-tiny .* no file of one was given; fetch one"):
        export_bundle(Checkpoint(WEIGHTS), [], tmp_path / "a.bundle")


def named(parts, words, sample):
    """(H, W) labels: each labelled segment's class; -1 where nothing is labelled."""
    import torch

    from edgeseg.export import use

    placement = place(sample.rgb.shape[:2], RECIPE.canvases, {"resize": RECIPE.resize})
    small = resize_rgb(sample.rgb, placement.valid)
    transforms = (transform for name, transform in use.transforms(RECIPE).items() if name != "image_sam")
    images = [preprocess(small, placement.valid, transform, placement.canvas) for transform in transforms]
    numbers = components(sample.labels, least=1)
    runs = encode_all((numbers == number for number in range(1, numbers.max() + 1)), numbers.shape)
    with torch.no_grad():
        patches = parts.encoder(*map(torch.from_numpy, images))
        weights = AreaPooling(placement, patches.shape[1]).weights(runs)
        best = (parts.head(patches, torch.from_numpy(weights)) @ words.t()).argmax(dim=1).numpy()
    return np.concatenate(([-1], best))[numbers]


def test_labelled_segments_get_the_names_that_the_result_says(shared):
    from safetensors.torch import load_file

    from edgeseg.export import use
    from training.text import embed

    dataset = open_dataset("camvid-11", shared / "data/camvid", "test")
    state = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    parts, words = use.load_clip(WEIGHTS, state, RECIPE), embed(RECIPE, dataset.prompts.names)
    published = json.loads(RESULT.read_text("utf-8"))["pixel_accuracy_percent_of_each_photo"]
    for index in range(0, len(dataset), EVERY):
        sample = dataset.load(index)
        right = (named(parts, words, sample) == sample.labels)[sample.labels >= 0]
        assert 100 * right.mean() == pytest.approx(published[index], abs=0.5)
