"""Training images in memory, and the batches made of them: which, how cropped and coloured follows from seed and step.

A batch depends on nothing that went before it, so a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from edgeseg.benches.datasets import Dataset
from edgeseg.preprocess import resize_rgb

Size = tuple[int, int]
UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]

ASPECT = 0.1
HELD = 400  # pixels of a class that a frame must have to be drawn for it
UNSCORED = -1


Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random.

    Attributes:
        smallest_crop: of the image's height.
        contrast, brightness, saturation, tint: ranges of factors; a tint is drawn for each colour.
        gamma: range of the exponent.
        grey, blur: shares of the images that lose their colours, or their sharpness.
        mix: share of the images onto which half of another image's classes are pasted (Olsson et al. 2021, ClassMix,
            with the true labels).
    """

    smallest_crop: float = 0.6
    contrast: Range = (0.6, 1.5)
    brightness: Range = (0.5, 1.4)
    saturation: Range = (0.4, 1.6)
    tint: Range = (0.9, 1.1)
    gamma: Range = (1.0, 1.0)
    grey: float = 0.0
    blur: float = 0.0
    mix: float = 0.0


MILD = Augmentation()
STRONG = Augmentation(
    smallest_crop=0.45,
    contrast=(0.7, 1.4),
    brightness=(0.7, 1.3),
    saturation=(0.2, 1.8),
    tint=(0.8, 1.2),
    gamma=(0.6, 1.6),
    grey=0.1,
    blur=0.2,
    mix=0.5,
)


@dataclass(frozen=True)
class Frame:
    """An image (H, W, 3) uint8 RGB and its labels (H, W) int32, UNSCORED where nothing is scored."""

    rgb: UInt8
    labels: Int32


def read_frames(dataset: Dataset, kept: list[int]) -> list[Frame]:
    """All images of a split; the labels in `kept` become 0, 1, ..., all others UNSCORED."""
    table = np.full(len(dataset.classes.names) + 1, UNSCORED, np.int32)
    table[kept] = np.arange(len(kept), dtype=np.int32)
    frames = []
    for index in range(len(dataset)):
        sample = dataset.load(index)
        labels = np.where(sample.labels == dataset.ignore, len(table) - 1, sample.labels)
        frames.append(Frame(sample.rgb, table[labels]))
    return frames


def count_pixels(frames: list[Frame], classes: int) -> Tensor:
    """(classes,) int64, labelled pixels of each class."""
    counts = [np.bincount(frame.labels[frame.labels >= 0], minlength=classes) for frame in frames]
    return torch.from_numpy(np.sum(counts, axis=0))


def content(canvas: Size) -> Size:
    """The part of a canvas that an image fills: 360x480 of 384x480, and the same share of a smaller one."""
    height = canvas[0] * 15 // 16
    return height, min(canvas[1], height * 4 // 3)


@dataclass(frozen=True)
class Batch:
    """rgb (B, 3, H, W) float, 0 to 255, zero outside the upper left `valid`; labels (B, H, W) int64."""

    rgb: Tensor
    labels: Tensor
    valid: Size


class Sampler:
    """Draws batches from the frames of a split.

    Args:
        frames: of the split.
        classes: how many there are.
    """

    def __init__(self, frames: list[Frame], classes: int) -> None:
        self._frames = frames
        self._holders = [[f for f in frames if (f.labels == index).sum() >= HELD] for index in range(classes)]

    def batch(self, count: int, canvas: Size, seed: tuple[int, ...], augmentation: Augmentation = MILD) -> Batch:
        """`count` images on a canvas, drawn, cropped, mirrored and recoloured by a generator seeded with `seed`.

        Each class is drawn as often as any other, and then one of the frames that hold it.
        """
        random, valid = np.random.default_rng(seed), content(canvas)
        rgb = np.zeros((count, 3, *canvas), np.float32)
        labels = np.full((count, *canvas), UNSCORED, np.int64)
        for row in range(count):
            frame = self._changed(valid, random, augmentation)
            if augmentation.mix and random.random() < augmentation.mix:
                frame = _pasted(self._changed(valid, random, augmentation), frame, random)
            rgb[row, :, : valid[0], : valid[1]] = frame.rgb.transpose(2, 0, 1)
            labels[row, : valid[0], : valid[1]] = frame.labels
        return Batch(torch.from_numpy(rgb), torch.from_numpy(labels), valid)

    def _changed(self, size: Size, random: np.random.Generator, augmentation: Augmentation) -> Changed:
        frame = _cropped(self._draw(random), size, random, augmentation.smallest_crop)
        return Changed(_recoloured(frame.rgb, random, augmentation), frame.labels)

    def _draw(self, random: np.random.Generator) -> Frame:
        frames = self._holders[random.integers(len(self._holders))] or self._frames
        return frames[random.integers(len(frames))]


@dataclass(frozen=True)
class Changed:
    """An image (H, W, 3) float, 0 to 255, and its labels (H, W) int32."""

    rgb: npt.NDArray[np.float32]
    labels: Int32


def _cropped(frame: Frame, size: Size, random: np.random.Generator, smallest: float) -> Frame:
    height, width = frame.labels.shape
    share = np.exp(random.uniform(np.log(smallest), 0))
    rows = int(height * share)
    columns = min(int(width * share * random.uniform(1 - ASPECT, 1 + ASPECT)), width)
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    part = slice(top, top + rows), slice(left, left + columns)
    rgb = resize_rgb(frame.rgb[part], size)
    labels = np.asarray(Image.fromarray(frame.labels[part]).resize((size[1], size[0]), Image.Resampling.NEAREST))
    return Frame(rgb[:, ::-1], labels[:, ::-1]) if random.random() < 0.5 else Frame(rgb, labels)


def _recoloured(rgb: UInt8, random: np.random.Generator, by: Augmentation) -> npt.NDArray[np.float32]:
    if by.blur and random.random() < by.blur:
        rgb = np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(random.uniform(0.5, 1.5))))
    pixels = rgb.astype(np.float32)
    mean = pixels.mean()
    pixels = (pixels - mean) * random.uniform(*by.contrast) + mean * random.uniform(*by.brightness)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + (pixels - grey) * random.uniform(*by.saturation)
    pixels = (pixels * random.uniform(*by.tint, 3)).clip(0, 255)
    if by.gamma[0] < by.gamma[1]:
        pixels = 255 * (pixels / 255) ** random.uniform(*by.gamma)
    if by.grey and random.random() < by.grey:
        pixels = np.broadcast_to(pixels.mean(axis=2, keepdims=True), pixels.shape)
    return pixels.astype(np.float32)


def _pasted(source: Changed, onto: Changed, random: np.random.Generator) -> Changed:
    """Half of the classes of `source`, where they are, over `onto`."""
    present = np.unique(source.labels[source.labels != UNSCORED])
    taken = np.isin(source.labels, random.permutation(present)[: (len(present) + 1) // 2])
    return Changed(np.where(taken[..., None], source.rgb, onto.rgb), np.where(taken, source.labels, onto.labels))
