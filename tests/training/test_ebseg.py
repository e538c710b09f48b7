"""The objective: sizes, class weights, soft labels, and that training sees what the exported model computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgeseg.export.ebseg import detect
from edgeseg.export.recipe import preset
from edgeseg.preprocess import preprocess
from tests.training.small import CLASSES, make_frames, make_objective
from training.ebseg import Objective, class_weights, mixture, tiny
from training.score import confusion, ious
from training.shares import cross_entropy, shares

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def objective() -> Objective:
    return make_objective()


def test_the_checkpoint_tells_every_size_again(objective):
    recipe = preset("ebseg-tiny")
    state = objective.model.state_dict()
    assert detect(state, recipe) == tiny(recipe, objective.text.shape[1])


def test_the_weights_fit_twelve_megabytes_in_half_precision():
    from edgeseg.export.nets.ebseg import EBSeg

    with torch.device("meta"):
        model = EBSeg(tiny(preset("ebseg-tiny"), 384))
    assert 2 * sum(p.numel() for p in model.parameters()) < 12e6


def test_rare_classes_weigh_more_and_the_mean_over_pixels_is_one():
    pixels = torch.tensor([900, 90, 9, 1])
    weights = class_weights(pixels)
    assert weights.tolist() == sorted(weights.tolist())
    assert float((weights * pixels).sum() / pixels.sum()) == pytest.approx(1, abs=1e-6)
    assert float(weights[1] / weights[0]) == pytest.approx(math.sqrt(10), rel=1e-5)


def test_soft_labels_are_shares_of_a_cell():
    labels = torch.full((1, 4, 8), -1)
    labels[0, :, :3] = 1
    labels[0, :2, 3] = 0
    covered = shares(labels, CLASSES, torch.zeros(1, 1, 1, 2))
    assert covered.shape == (1, CLASSES, 1, 2)
    assert covered[0, :, 0, 0].tolist() == [2 / 16, 12 / 16, 0]
    assert covered[0, :, 0, 1].tolist() == [0, 0, 0]


def test_the_mixture_is_the_score_the_runtime_composes(objective):
    masks, classes = torch.randn(1, 5, 3, 4), torch.rand(1, 5, CLASSES)
    plain = torch.stack([classes[0, q, :, None, None] * masks[0, q].sigmoid() for q in range(5)]).sum(dim=0)
    expected = plain / plain.sum(dim=0)
    torch.testing.assert_close(mixture(masks, classes)[0].exp(), expected, rtol=1e-4, atol=1e-6)


def test_a_right_prediction_costs_less_than_a_wrong_one(objective):
    covered = torch.zeros(1, CLASSES, 2, 2)
    covered[:, 1] = 1
    right, wrong = torch.full((1, CLASSES, 2, 2), -5.0), torch.full((1, CLASSES, 2, 2), -5.0)
    right[:, 1], wrong[:, 2] = 0, 0
    assert cross_entropy(right, covered, objective.weights) < cross_entropy(wrong, covered, objective.weights)


def test_training_reads_the_inputs_that_the_runtime_makes(objective, monkeypatch):
    from edgeseg.export.ebseg import transforms

    class SeenError(Exception):
        pass

    def record(image):
        raise SeenError(image)

    monkeypatch.setattr(objective.model.backbone, "forward", record)
    rgb = make_frames(1)[0].rgb[:60, :80]
    canvas = torch.zeros(1, 3, 64, 96)
    canvas[0, :, :60, :80] = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    with pytest.raises(SeenError) as seen:
        objective.predict(canvas, (60, 80), objective.text, torch.ones(CLASSES))
    expected = preprocess(rgb, (60, 80), transforms(preset("ebseg-tiny"))["image_sam"], (64, 96))
    np.testing.assert_allclose(seen.value.args[0].numpy(), expected, atol=1e-5)


def test_validation_counts_labelled_pixels_only(objective):
    frames = make_frames(2)
    with torch.no_grad():
        matrix = confusion(objective, frames, objective.text, torch.ones(CLASSES))
    assert int(matrix.sum()) == sum(int((frame.labels >= 0).sum()) for frame in frames)


def test_iou_by_hand():
    matrix = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert ious(matrix).tolist() == pytest.approx([100 * 6 / 9, 100 * 3 / 6, 0])
