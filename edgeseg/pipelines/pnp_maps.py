"""From class maps of 21x21 cells to a label map, as the released code does it, but plane by plane.

A class's map is cut off below a share of its range, enlarged bilinearly with corners aligned, blurred and brought to
0..1. The first two after the cut are linear and act on each axis by itself, so an axis has one operator for both, and
the blur costs nothing. Only the background, which is where the enlarged maps are all zero, is blurred at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.compose import NONE_LABEL, Composition
from edgeseg.pipelines.pnp_settings import Settings
from edgeseg.placement import Placement
from edgeseg.schema import Size

Float32 = npt.NDArray[np.float32]

TRUNCATE = 4.0  # deviations at which the blur's kernel ends
FEW = 3  # fewer classes than these leave a background
_STRIP = 64


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """What the class scores of PnP-OVSS are computed from.

    Attributes:
        maps: (K, h, w) float32, the rounds' sum, not negative.
        kept: (K,) indices into `names`: the classes that stood in the caption.
        names: C class names.
        placement: where the image lies on the canvas; the maps cover all of it.
        settings: of the image.
        rgb: (H, W, 3) uint8 of the image's own size, for the random field; None leaves that out.
    """

    maps: Float32
    kept: npt.NDArray[np.intp]
    names: tuple[str, ...]
    placement: Placement
    settings: Settings
    rgb: npt.NDArray[np.uint8] | None = None

    def compose(self, threshold: float | None = None) -> Composition:
        """See `edgeseg.segmentation.Evidence`."""
        labels, best = self._refined() if self.settings.crf and self.rgb is not None else self._winners()
        if threshold is not None:
            labels[best < threshold] = NONE_LABEL
        areas = np.bincount(labels.ravel(), minlength=len(self.names))[: len(self.names)].astype(np.int64)
        return Composition(labels, areas, None if threshold is None else best)

    def scores(self) -> Iterator[tuple[slice, slice, Float32]]:
        """See `edgeseg.segmentation.Evidence`; zero for the classes that stood in no caption."""
        height, width = self.placement.original
        planes = self._planes()
        ranges = [(float(plane.min()), float(plane.max())) for plane in planes]
        rows, columns = (self._operator(axis) for axis in (0, 1))
        cells = self._cells()
        for top in range(0, height, _STRIP):
            y = slice(top, min(top + _STRIP, height))
            scores = np.zeros((y.stop - top, width, len(self.names)), np.float32)
            for number, (label, (low, high)) in enumerate(zip(self.kept, ranges, strict=True)):
                scores[..., label] = self._ranged(rows[y] @ cells[number] @ columns.T, low, high)
            yield y, slice(0, width), scores

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`class_maps` (K, h, w) and `classes` (K,): see `edgeseg.segmentation.Evidence`."""
        return {"class_maps": self.maps, "classes": self.kept}

    def _cells(self) -> Float32:
        return cut(self.maps, self.settings.cells)

    def _operator(self, axis: int) -> Float32:
        """(H, h) or (W, w): enlarge, and blur if that is set."""
        size = self.placement.original
        enlarge = corner_matrix(self.maps.shape[axis + 1], size[axis])
        sigma = self.settings.blur * max(size)
        return blur_matrix(size[axis], sigma) @ enlarge if sigma else enlarge

    def _planes(self) -> Iterator[Float32]:
        """Each class at the image's size, (H, W), before it is brought to 0..1."""
        rows, columns = self._operator(0), self._operator(1)
        for cells in self._cells():
            yield rows @ cells @ columns.T

    def _scaled(self) -> Iterator[tuple[int, Float32]]:
        """Label and plane of every channel that takes part, the background's first."""
        background = self._background()
        if background is not None:
            yield NONE_LABEL, background
        for label, plane in zip(self.kept, self._planes(), strict=True):
            yield int(label), self._ranged(plane, float(plane.min()), float(plane.max()))

    def _ranged(self, plane: Float32, low: float, high: float) -> Float32:
        """0..1 where the maps are blurred; else as they are."""
        if not self.settings.blur:
            return plane
        return (plane - low) / (high - low) if high > low else np.zeros_like(plane)

    def _background(self) -> Float32 | None:
        """1 where every enlarged map is zero, blurred like the others; None where no pixel may be background."""
        size, rule = self.placement.original, self.settings.background
        if rule == "never" or (rule == "few" and len(self.kept) >= FEW):
            return None
        rows, columns = (corner_matrix(self.maps.shape[axis + 1], size[axis]) for axis in (0, 1))
        empty: Float32 = np.ones(size, np.float32)
        for cells in self._cells():
            empty[rows @ cells @ columns.T > 0] = 0
        sigma = self.settings.blur * max(size)
        if sigma:
            empty = np.asarray(blur_matrix(size[0], sigma) @ empty @ blur_matrix(size[1], sigma).T, np.float32)
        return self._ranged(empty, float(empty.min()), float(empty.max()))

    def _winners(self) -> tuple[npt.NDArray[np.uint16], Float32]:
        size: Size = self.placement.original
        labels, best = np.zeros(size, np.uint16), np.full(size, -np.inf, np.float32)
        for label, plane in self._scaled():
            above = plane > best
            labels[above], best[above] = label, plane[above]
        return labels, best

    def _refined(self) -> tuple[npt.NDArray[np.uint16], Float32]:
        from edgeseg.densecrf import refine

        assert self.rgb is not None
        channels = list(self._scaled())
        scores = np.stack([plane for _, plane in channels])
        refined = refine(scores, self.rgb)
        numbers = np.array([label for label, _ in channels], np.uint16)
        return numbers[refined.argmax(0)], refined.max(0)


def cut(maps: Float32, least: float) -> Float32:
    """Maps (K, h, w) with zeros where they are below this share of their range."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    spread = np.where(high > low, high - low, 1)
    return np.where((maps - low) / spread >= least, maps, 0).astype(np.float32)


def corner_matrix(length: int, outputs: int) -> Float32:
    """(outputs, length): bilinear interpolation with the corners aligned; positions in float32, as torch has them."""
    step = np.float32(length - 1) / np.float32(outputs - 1) if outputs > 1 else np.float32(0)
    positions = np.arange(outputs, dtype=np.float32) * step
    lower = np.minimum(positions.astype(np.intp), length - 1)
    weight = (positions - lower.astype(np.float32)).clip(0, 1)
    made, rows = np.zeros((outputs, length), np.float32), np.arange(outputs)
    np.add.at(made, (rows, lower), 1 - weight)
    np.add.at(made, (rows, np.minimum(lower + 1, length - 1)), weight)
    return made


def blur_matrix(length: int, sigma: float) -> Float32:
    """(length, length): a Gaussian along an axis that goes on as its mirror image, each end repeated."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    made, rows = np.zeros((length, length)), np.arange(length)
    for offset, weight in zip(offsets, kernel, strict=True):
        places = (rows + offset) % (2 * length)
        np.add.at(made, (rows, np.where(places < length, places, 2 * length - 1 - places)), weight)
    return made.astype(np.float32)
