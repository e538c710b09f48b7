"""The label map of sliding windows: the mean of the windows' scores and of the whole image's, band by band.

A view's score of a class is the sigmoid of its logits, enlarged to the window. Where windows overlap, their mean
counts; the whole image, stretched over the canvas, counts as much as all windows together. The result is brought to the
image's size, whatever its aspect. All resizes are bilinear, so along each axis they are one operator; the sigmoid is
between two of them, so the scores are computed for a band of pixels and a few classes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.bilinear import matrix
from edgeseg.compose import NONE_LABEL, Composition
from edgeseg.placement import Placement
from edgeseg.schema import Size

Float32 = npt.NDArray[np.float32]

BAND = 64  # rows of the image
GROUP = 16  # classes
_LOGIT_FLOOR, _ABSENT = np.float32(-60), np.float32(-100)  # sigmoid is 1e-26 at -60; the authors fill in -100


@dataclass(frozen=True)
class Windows:
    """Windows of one side on a canvas (H, W), `stride` apart."""

    canvas: Size
    side: int
    stride: int

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top left corners (y, x), row by row."""
        rows, columns = (range(0, extent - self.side + 1, self.stride) for extent in self.canvas)
        return [(y, x) for y in rows for x in columns]

    @property
    def single(self) -> bool:
        """Whether the canvas is one window, which stands for the whole image."""
        return self.canvas == (self.side, self.side)


@dataclass(frozen=True, eq=False)
class WindowScores:
    """What the class scores are computed from; see `edgeseg.segmentation.Evidence`.

    Attributes:
        logits: (B, S, h, w) float32, of the classes that each view aggregated.
        picked: (B, S) int32, their numbers; the score of every other class is 0 in that view.
        names: C class names.
        placement: where the image lies on the canvas.
        windows: the views; the whole image comes last unless it is the only one.
    """

    logits: Float32
    picked: npt.NDArray[np.int32]
    names: tuple[str, ...]
    placement: Placement
    windows: Windows = field(repr=False)

    def compose(self, threshold: float | None = None) -> Composition:
        """See `Evidence`."""
        size, seen = self.placement.original, np.unique(self.picked)
        labels, best = np.empty(size, np.uint16), np.empty(size, np.float32)
        for rows in _bands(size[0]):
            found, winner = np.full((rows.stop - rows.start, size[1]), -1, np.float32), labels[rows]
            for group in np.array_split(seen, -(-len(seen) // GROUP)):
                scores = self._band(rows, group)
                index = scores.argmax(0)
                top = np.take_along_axis(scores, index[None], 0)[0]
                better = top > found
                winner[better], found[better] = group[index][better], top[better]
            best[rows] = found
        if threshold is not None:
            labels[best < threshold] = NONE_LABEL
        count = max(len(self.names), int(seen[-1]) + 1)
        areas = np.bincount(labels.ravel(), minlength=count)[:count].astype(np.int64)
        return Composition(labels, areas, None if threshold is None else best)

    def scores(self) -> Iterator[tuple[slice, slice, Float32]]:
        """See `Evidence`; a class that no view aggregated has 0."""
        width, seen = self.placement.original[1], np.unique(self.picked)
        for rows in _bands(self.placement.original[0], BAND // 4):
            made = np.zeros((rows.stop - rows.start, width, len(self.names)), np.float32)
            for group in np.array_split(seen, -(-len(seen) // GROUP)):
                made[..., group] = self._band(rows, group).transpose(1, 2, 0)
            yield rows, slice(0, width), made

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Evidence`."""
        windows = np.array([self.windows.side, self.windows.stride])
        return {"logits": self.logits, "picked": self.picked, "windows": windows}

    def _band(self, rows: slice, classes: npt.NDArray[np.integer[Any]]) -> Float32:
        """(n, rows, W) scores of some classes."""
        if self.windows.single:
            shown = _sigmoid(self._logits(0, classes))
            height, width = self.placement.original  # the authors crop to the image's size, which a small one feels
            return self._spread(self._operators[0][rows], shown[:, :height, :width])
        used = np.flatnonzero(self._operators[0][rows].any(0))
        band = slice(int(used[0]), int(used[-1]) + 1)
        return self._spread(self._operators[0][rows, band], self._canvas(band, classes))

    def _spread(self, rows: Float32, cells: Float32) -> Float32:
        made = rows @ cells @ self._operators[1].T
        return np.asarray(made, np.float32)

    def _canvas(self, band: slice, classes: npt.NDArray[np.integer[Any]]) -> Float32:
        """(n, rows, width) scores of a band of the canvas."""
        side, corners = self.windows.side, self.windows.corners
        total = np.zeros((len(classes), band.stop - band.start, self.windows.canvas[1]), np.float32)
        cover = np.zeros(total.shape[1:], np.float32)
        for view, (y, x) in enumerate(corners):
            part = slice(max(band.start, y), min(band.stop, y + side))
            if part.start < part.stop:
                own = slice(part.start - band.start, part.stop - band.start), slice(x, x + side)
                total[:, own[0], own[1]] += self._window(view, slice(part.start - y, part.stop - y), classes)
                cover[own] += 1
        total /= cover
        rows, columns = self._stretches
        used = np.flatnonzero(rows[band].any(0))
        inner = slice(int(used[0]), int(used[-1]) + 1)
        total += rows[band, inner] @ self._window(len(corners), inner, classes) @ columns.T
        total /= 2
        return total

    def _window(self, view: int, rows: slice, classes: npt.NDArray[np.integer[Any]]) -> Float32:
        """(n, rows, side) scores of some rows of one view."""
        tall, wide = self._enlargements
        made = tall[rows] @ self._logits(view, classes) @ wide.T
        return _sigmoid(np.asarray(made, np.float32))

    def _logits(self, view: int, classes: npt.NDArray[np.integer[Any]]) -> Float32:
        """(n, h, w) logits of one view."""
        place = np.searchsorted(self.picked[view], classes).clip(max=self.picked.shape[1] - 1)
        there = self.picked[view, place] == classes
        found: Float32 = np.where(there[:, None, None], self.logits[view, place], _ABSENT)
        return found

    @cached_property
    def _enlargements(self) -> tuple[Float32, Float32]:
        """From logits to a window's pixels, by rows and by columns."""
        side = self.windows.side
        height, width = self.logits.shape[2:]
        return matrix(height, side, height / side), matrix(width, side, width / side)

    @cached_property
    def _stretches(self) -> tuple[Float32, Float32]:
        """From the whole image's window to the canvas."""
        side, (height, width) = self.windows.side, self.windows.canvas
        return matrix(side, height, side / height), matrix(side, width, side / width)

    @cached_property
    def _operators(self) -> tuple[Float32, Float32]:
        """To the image's pixels: from the canvas, or from the logits' cells where there is one view."""
        single, sides = self.windows.single, []
        for axis, extent in enumerate(self.placement.original):
            cells = min(self.logits.shape[2 + axis], extent) if single else self.windows.canvas[axis]
            sides.append(matrix(cells, extent, cells / extent))
        return sides[0], sides[1]


def _bands(height: int, rows: int = BAND) -> Iterator[slice]:
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _sigmoid(logits: Float32) -> Float32:
    """In place, on fresh arrays."""
    np.maximum(logits, _LOGIT_FLOOR, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    np.add(logits, 1, out=logits)
    return np.reciprocal(logits, out=logits)
