"""USE's objective: the file it becomes, what is trained, the segments it is trained on, and its loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from edgeseg.export import use as family
from edgeseg.export.ebseg import detect as ebseg_sizes
from edgeseg.export.nets.ebseg import EBSeg
from edgeseg.export.recipe import preset
from edgeseg.placement import place
from edgeseg.preprocess import preprocess, resize_rgb
from edgeseg.segments.pooling import AreaPooling
from edgeseg.segments.runs import encode_all
from tests.training.small import CLASSES, losses, make_frames
from training.data import UNSCORED, Sampler
from training.start import START
from training.use import Objective, contrast, tiny

pytestmark = pytest.mark.torch

WIDTH, SIDE, CANVAS, VALID = 384, 480, (384, 480), (360, 480)
RECIPE = preset("use-tiny")


@pytest.fixture(scope="module")
def ebseg():
    return load_file(START)


@pytest.fixture
def objective(ebseg) -> Objective:
    """Of three classes, with random embeddings under two kinds of prompts."""
    torch.manual_seed(0)
    texts = F.normalize(torch.randn(2, CLASSES, WIDTH), dim=-1)
    return Objective(tiny(RECIPE, ebseg, WIDTH), RECIPE, texts, torch.ones(CLASSES))


@pytest.fixture(scope="module")
def batch():
    return Sampler(make_frames(4, (90, 120)), CLASSES).batch(2, CANVAS, (0, 0))


def blocks() -> torch.Tensor:
    """(H, W) labels of a canvas: two segments of class 1, one of class 0, one that is too small, the rest unscored."""
    labels = torch.full(CANVAS, UNSCORED)
    labels[0:40, 0:48], labels[100:200, 300:310], labels[40:60, 0:48], labels[300:309, 0:11] = 1, 1, 0, 2
    return labels


def test_the_file_gives_the_networks_that_were_trained(objective, batch):
    state = {name: value.clone() for name, value in objective.checkpoint(objective.model.state_dict()).items()}
    assert family.recognises(state)
    assert family.clip_sizes(state) == (RECIPE.clip_width, RECIPE.clip_patch)
    parts = family.load_clip(Path("a.safetensors"), state, RECIPE)
    assert parts.trained
    assert parts.text is None
    assert parts.scale == pytest.approx(objective.scale)
    images = [F.pad(image, (0, 0, 0, 96)) for image in objective.normalised(batch.rgb[:1], batch.valid)]
    found = parts.encoder(images[1], images[0])
    torch.testing.assert_close(found, objective.patches(batch.rgb[:1], batch.valid).detach(), rtol=1e-4, atol=1e-5)
    weights = objective.segments(batch.labels[0])[0]
    torch.testing.assert_close(parts.head(found, weights), objective.model.head(found, weights).detach())


def test_the_encoders_are_those_of_ebseg_tiny(objective, ebseg):
    """SAM's tokens after each tap, CLIP's after the last tap that both read as it is."""
    with torch.device("meta"):
        other = EBSeg(ebseg_sizes(ebseg, preset("ebseg-tiny")))
    other.load_state_dict({name: value.float() for name, value in ebseg.items()}, assign=True)
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        own, beside = objective.model.encoder.tokens(image, image)
        torch.testing.assert_close(beside, list(other.backbone(image)))
        *_, tokens, _ = other.clip_visual_extractor(image)
    torch.testing.assert_close(own[2], tokens, rtol=1e-4, atol=1e-4)


def test_patches_are_the_sum_of_all_levels_and_of_clips_class_token(objective):
    encoder = objective.model.encoder
    torch.nn.init.normal_(encoder.scales)
    own, beside = [[torch.randn(1, 4 + first, 128) for _ in range(4)] for first in (1, 0)]
    wanted = torch.zeros(1, 4, 128)
    for number, tokens in enumerate([*own, *beside]):
        level = [*encoder.clip_levels, *encoder.second_levels][number]
        made = F.layer_norm(tokens @ level.linear.weight.t(), (128,)) * encoder.scales[number]
        wanted = wanted + (made[:, 1:] + made[:, :1] if number < 4 else made)
    torch.testing.assert_close(encoder.merge(own, beside), wanted, rtol=1e-4, atol=1e-5)


def test_the_encoders_stay_as_they_were_and_all_else_is_trained(objective, batch):
    objective(batch.rgb, batch.labels, batch.valid).backward()
    still = {name for name, value in objective.model.named_parameters() if value.grad is None or not value.grad.any()}
    encoders = {
        name for name, _ in objective.model.named_parameters() if name.startswith(("encoder.clip.", "encoder.second."))
    }
    assert still == encoders


def test_segments_are_large_enough_pieces_of_one_class(objective):
    weights, classes = objective.segments(blocks())
    assert classes.tolist() == [0, 1, 1]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    grid = weights.reshape(3, 30, 30)
    torch.testing.assert_close(grid[1, :2, :3], torch.full((2, 3), 256 / 1920))
    assert grid[1, 2, :3].tolist() == pytest.approx([128 / 1920] * 3)
    assert grid[0, 2, 3] == 0


def test_segments_weigh_patches_as_the_runtime_does(objective):
    labels = blocks()
    mine, _ = objective.segments(labels)
    truth = labels[: VALID[0]].numpy()
    masks = [truth == 0, (truth == 1) & (np.arange(480) < 100), (truth == 1) & (np.arange(480) > 100)]
    recipe = {"resize": RECIPE.resize}
    pooling = AreaPooling(place(VALID, RECIPE.canvases, recipe), 900)
    np.testing.assert_allclose(mine.numpy(), pooling.weights(encode_all(masks, VALID)), atol=1e-5)


def test_training_reads_the_inputs_that_the_runtime_makes(objective, monkeypatch):
    """Up to what it costs to go to the canvas and back, on a photo without much detail."""
    seen: dict[str, torch.Tensor] = {}

    def record(clip, second):
        seen.update(image_clip=clip, image_vit=second)
        return tokens(clip, second)

    tokens = objective.model.encoder.tokens
    monkeypatch.setattr(objective.model.encoder, "tokens", record)
    rgb = resize_rgb(make_frames(1, (12, 16))[0].rgb, VALID)
    canvas = torch.zeros(1, 3, *CANVAS)
    canvas[0, :, : VALID[0]] = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    with torch.no_grad():
        assert objective.scores(canvas, VALID, objective.text, torch.ones(CLASSES)).shape == (1, CLASSES, *CANVAS)
    placement = place(VALID, RECIPE.canvases, {"resize": RECIPE.resize})
    for name, image in seen.items():
        transform = family.transforms(RECIPE)[name]
        theirs = preprocess(resize_rgb(rgb, placement.valid), placement.valid, transform, placement.canvas)
        assert list(theirs.shape) == list(image.shape) == [1, 3, SIDE, SIDE]
        assert np.abs(theirs - image.numpy())[..., :359, :].max() < 0.05
        assert not image[..., 360:, :].any()


def test_every_second_segment_is_asked_with_the_prompt_bank(objective, batch, monkeypatch):
    asked = []

    def record(logits, classes):
        asked.append(logits)
        return logits.sum()

    monkeypatch.setattr("training.use.contrast", record)
    objective(batch.rgb, batch.labels, batch.valid)
    patches = objective.patches(batch.rgb, batch.valid)
    rows = [objective.model.head(patches[i : i + 1], objective.segments(batch.labels[i])[0]) for i in range(2)]
    both = [torch.cat(rows) @ text.t() * objective.scale for text in objective.texts]
    torch.testing.assert_close(asked[0][0::2], both[0][0::2])
    torch.testing.assert_close(asked[0][1::2], both[1][1::2])


def test_the_loss_is_the_mean_over_the_segments():
    logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
    right, wrong = np.log1p(np.exp(-4)), np.log1p(np.exp(4))
    assert float(contrast(logits, torch.tensor([0, 1]))) == pytest.approx((right + wrong) / 2)
    assert float(contrast(logits[:0], torch.zeros(0, dtype=torch.long))) == 0


def test_a_photo_without_a_segment_has_no_loss(objective, batch):
    nothing = torch.full_like(batch.labels, UNSCORED)
    assert float(objective(batch.rgb, nothing, batch.valid).detach()) == 0


@pytest.mark.slow
def test_the_loss_falls(objective, batch):
    first, *_, last = losses(objective, batch, rate=3e-3, steps=6)
    assert last < 0.7 * first
