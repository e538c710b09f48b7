"""LMSeg's objective: sizes, the encoders it starts from, which prompts are asked, and what the runtime would see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeseg.export.ebseg import detect as ebseg_sizes
from edgeseg.export.lmseg import CLIP, detect, transforms
from edgeseg.export.nets.ebseg import EBSeg
from edgeseg.export.nets.lmseg import LMSeg
from edgeseg.export.recipe import preset
from edgeseg.pipelines.lmseg import stretch
from tests.training.small import CLASSES, losses, make_frames
from training.data import Sampler
from training.lmseg import Objective, initialise, tiny
from training.start import START

pytestmark = pytest.mark.torch

WIDTH, CANVAS = 384, (384, 480)


@pytest.fixture(scope="module")
def ebseg():
    return load_file(START)


@pytest.fixture
def objective(ebseg) -> Objective:
    """Of three classes, with random embeddings under two kinds of prompts."""
    torch.manual_seed(0)
    recipe = preset("lmseg-tiny")
    model = LMSeg(tiny(recipe, WIDTH))
    initialise(model, ebseg)
    texts = torch.nn.functional.normalize(torch.randn(2, CLASSES, WIDTH), dim=-1)
    return Objective(model, recipe, texts, torch.ones(CLASSES))


@pytest.fixture(scope="module")
def batch():
    return Sampler(make_frames(4, (90, 120)), CLASSES).batch(2, CANVAS, (0, 0))


def test_the_checkpoint_tells_every_size_again(objective):
    assert detect(objective.model.state_dict(), preset("lmseg-tiny")) == tiny(preset("lmseg-tiny"), WIDTH)


def test_the_encoders_are_those_of_ebseg_tiny(objective, ebseg):
    """SAM's tokens, and CLIP's after the last block that both read as it is."""
    with torch.device("meta"):
        other = EBSeg(ebseg_sizes(ebseg, preset("ebseg-tiny")))
    other.load_state_dict({name: value.float() for name, value in ebseg.items()}, assign=True)
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(objective.model.sam(image)[-1], other.backbone(image)[-1])
        *_, tokens, _ = other.clip_visual_extractor(image)
        guides = objective.model.clip.visual(image)[1:]
    torch.testing.assert_close(guides[1], tokens[:, 1:], rtol=1e-4, atol=1e-4)


def test_weights_without_an_encoder_are_refused(objective, ebseg):
    with pytest.raises(SystemExit, match=r"lack what becomes sam\.pos_embed$"):
        initialise(objective.model, {name: value for name, value in ebseg.items() if name != "backbone.pos_embed"})


def test_sam_stays_as_it_was_and_all_else_that_is_read_is_trained(objective, batch):
    objective(batch.rgb, batch.labels, batch.valid).backward()
    still = {name for name, value in objective.model.named_parameters() if value.grad is None or not value.grad.any()}
    sam = {name for name, _ in objective.model.named_parameters() if name.startswith("sam.")}
    # Nobody reads CLIP's logit scale, and in its last block no token attends to another.
    unread = {f"{CLIP}.logit_scale", *(f"{CLIP}.visual.transformer.resblocks.7.attn.{x}_proj_weight" for x in "qk")}
    assert still == sam | unread


def test_every_second_image_is_asked_with_the_prompt_bank(objective, batch, monkeypatch):
    asked = []
    predict = objective.predict

    def record(rgb, valid, text):
        asked.append(text)
        return predict(rgb, valid, text)

    monkeypatch.setattr(objective, "predict", record)
    objective(batch.rgb, batch.labels, batch.valid)
    assert torch.equal(asked[0], objective.texts)
    assert torch.equal(objective.text, objective.texts[0])


def test_training_reads_the_inputs_that_the_runtime_makes(objective, monkeypatch):
    seen = {}
    for name, encoder in (("image_clip", objective.model.clip.visual), ("image_sam", objective.model.sam)):
        forward = encoder.forward

        def record(image, name=name, forward=forward):
            seen[name] = image
            return forward(image)

        monkeypatch.setattr(encoder, "forward", record)
    rgb = make_frames(1, (360, 480))[0].rgb
    canvas = torch.zeros(1, 3, *CANVAS)
    canvas[0, :, :360] = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    with torch.no_grad():
        scores = objective.scores(canvas, (360, 480), objective.text, torch.ones(CLASSES))
    assert scores.shape == (1, CLASSES, *CANVAS)
    for name, transform in transforms(preset("lmseg-tiny")).items():
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (transform.mean, transform.std))
        plain = (rgb.transpose(2, 0, 1).astype(np.float32) - mean) / std
        padded = np.pad(plain, ((0, 0), (0, 24), (0, 0)))
        np.testing.assert_allclose(seen[name][0].numpy(), stretch(padded, (384, 384)), atol=1e-4)


@pytest.mark.slow
def test_the_loss_falls(objective, batch):
    first, *_, last = losses(objective, batch, rate=1e-3, steps=8)
    assert last < 0.7 * first
