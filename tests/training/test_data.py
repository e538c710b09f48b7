"""Batches: what is labelled, where the image lies, and that a batch depends on its seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgeseg.benches.datasets import open_dataset
from tests.training.small import CLASSES, COLOURS, make_frames
from training.data import HELD, STRONG, UNSCORED, Augmentation, Frame, Sampler, content, count_pixels, read_frames

pytestmark = pytest.mark.torch


@pytest.fixture
def camvid(tmp_path):
    """One image of one row: every label of CamVid, 11 not scored."""
    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (tmp_path / "train" / folder).mkdir(parents=True)
        pixels = np.arange(12, dtype=np.uint8)[None]
        Image.fromarray(pixels if mode == "L" else np.repeat(pixels[..., None], 3, 2)).save(
            tmp_path / "train" / folder / "a.png"
        )
    return open_dataset("camvid-11", tmp_path, "train")


def test_every_class_keeps_its_number(camvid):
    labels = read_frames(camvid, list(range(11)))[0].labels
    assert labels.tolist() == [[*range(11), UNSCORED]]


def test_pixels_of_a_class_held_out_are_not_scored(camvid):
    labels = read_frames(camvid, [0, 2, 10])[0].labels
    assert labels.tolist() == [[0, UNSCORED, 1, *[UNSCORED] * 7, 2, UNSCORED]]


def test_pixels_are_counted_by_class():
    frames = make_frames(3)
    counts = count_pixels(frames, 3)
    assert int(counts.sum()) == 3 * (96 * 128 - 64)
    assert counts.tolist() == [int(sum((frame.labels == i).sum() for frame in frames)) for i in range(3)]


@pytest.mark.parametrize(
    ("canvas", "size"), [((384, 480), (360, 480)), ((192, 256), (180, 240)), ((288, 384), (270, 360))]
)
def test_the_image_fills_the_same_share_of_every_canvas(canvas, size):
    assert content(canvas) == size


def test_a_batch_follows_from_its_seed():
    sampler = Sampler(make_frames(5), CLASSES)
    one, same, other = (sampler.batch(3, (64, 96), (0, step)) for step in (7, 7, 8))
    assert torch.equal(one.rgb, same.rgb)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.rgb, other.rgb)


def test_outside_the_image_all_is_zero_and_unscored():
    batch = Sampler(make_frames(2), CLASSES).batch(2, (64, 96), (0, 0))
    height, width = batch.valid
    assert (height, width) == (60, 80)
    outside = torch.ones(64, 96, dtype=torch.bool)
    outside[:height, :width] = False
    assert batch.rgb[..., outside].abs().max() == 0
    assert (batch.labels[:, outside] == UNSCORED).all()
    assert (batch.labels[:, ~outside] != UNSCORED).float().mean() > 0.9


def test_labels_stay_on_what_they_label():
    batch = Sampler(make_frames(6), CLASSES).batch(16, (96, 128), (0, 0))
    rgb, labels = batch.rgb.permute(0, 2, 3, 1), batch.labels
    for index, colour in enumerate(COLOURS):
        mean = rgb[labels == index].mean(dim=0)
        assert int(mean.argmax()) == int(colour.argmax())


def test_a_rare_class_is_drawn_as_often_as_any_other():
    frames = [Frame(f.rgb, np.where(f.labels == 2, UNSCORED, f.labels)) for f in make_frames(20)]
    rare = frames[0].labels.copy()
    rare[40:60, 50:80] = 2
    assert (rare == 2).sum() >= HELD
    sampler = Sampler([Frame(frames[0].rgb, rare), *frames[1:]], CLASSES)
    drawn = sum(bool((sampler.batch(1, (96, 128), (0, step)).labels == 2).any()) for step in range(90))
    assert 15 < drawn < 45


def test_a_class_that_no_frame_holds_is_drawn_for_any_frame():
    frames = [Frame(f.rgb, np.where(f.labels == 2, UNSCORED, f.labels)) for f in make_frames(2)]
    assert (Sampler(frames, CLASSES).batch(4, (96, 128), (0, 0)).labels != UNSCORED).any(dim=2).any(dim=1).all()


def test_strong_augmentation_follows_from_its_seed_and_stays_in_range():
    sampler = Sampler(make_frames(5), CLASSES)
    one, same = (sampler.batch(8, (64, 96), (0, 7), STRONG) for _ in range(2))
    assert torch.equal(one.rgb, same.rgb)
    assert not torch.equal(one.rgb, sampler.batch(8, (64, 96), (0, 7)).rgb)
    assert float(one.rgb.min()) >= 0
    assert float(one.rgb.max()) <= 255


def test_a_grey_image_has_one_value_for_all_colours():
    batch = Sampler(make_frames(2), CLASSES).batch(2, (64, 96), (0, 0), Augmentation(grey=1.0))
    assert torch.equal(batch.rgb[:, 0], batch.rgb[:, 1])


def test_what_is_pasted_brings_its_labels():
    """A bright frame and a dark one, a colour for each class: wherever a colour shows, its label stands."""
    bright = make_frames(1)[0]
    sampler = Sampler([bright, Frame(bright.rgb // 2, bright.labels)], CLASSES)
    still = (1.0, 1.0)
    plain, mixed = Augmentation(0.9, still, still, still, still, mix=1.0), 0
    for step in range(12):
        batch = sampler.batch(1, (96, 128), (0, step), plain)
        height, width = batch.valid
        rgb, labels = batch.rgb[0, :, :height, :width], batch.labels[0, :height, :width]
        scored = labels != UNSCORED
        assert (rgb.argmax(dim=0) == labels)[scored].float().mean() > 0.95  # a resized edge may lie a pixel off
        mixed += 0.1 < float((rgb.amax(dim=0) > 140)[scored].float().mean()) < 0.9
    assert mixed >= 3
