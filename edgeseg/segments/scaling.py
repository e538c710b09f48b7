"""A small mask of logits at the size of the photo, computed only where it can be positive.

segment-anything resizes a mask twice: to the canvas, and from the canvas's valid part to the photo. Both steps are
linear and act on rows and columns apart, so here they are one product on each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.bilinear import matrix
from edgeseg.placement import Placement

Float32 = npt.NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Window:
    """Logits at the photo's size: `values` has its top left pixel at (`top`, `left`); all others are below a limit."""

    top: int
    left: int
    values: Float32


class MaskScaler:
    """Resizes masks of one photo.

    Args:
        placement: of the photo on the canvas.
        cells: side of the square small masks, which cover the canvas.
    """

    def __init__(self, placement: Placement, cells: int) -> None:
        self.size = placement.original
        sides = zip(placement.original, placement.valid, placement.canvas, strict=True)
        self._rows, self._columns = (_Axis(cells, *side) for side in sides)

    def window(self, logits: Float32, limit: float) -> Window:
        """The part of a mask, (cells, cells), where the resized logits can exceed `limit`; at least one pixel.

        A resized value is a weighted mean of cells, so it stays below the limit where all of its cells do.
        """
        over: npt.NDArray[np.bool_] = logits > limit
        rows, columns = self._rows.reach(np.any(over, axis=1)), self._columns.reach(np.any(over, axis=0))
        left, right = self._rows.operator(rows), self._columns.operator(columns)
        small = logits[self._rows.cells(rows), self._columns.cells(columns)]
        values = np.asarray(left @ small @ right.T, np.float32)
        return Window(rows[0], columns[0], values)


class _Axis:
    """One side: cells, canvas, valid part, photo."""

    def __init__(self, cells: int, original: int, valid: int, canvas: int) -> None:
        up = matrix(cells, canvas, cells / canvas)[:valid]
        self._matrix = matrix(valid, original, valid / original) @ up
        used = self._matrix > 0
        self._first = used.argmax(axis=1)
        self._last = cells - 1 - used[:, ::-1].argmax(axis=1)

    def reach(self, on: npt.NDArray[np.bool_]) -> Span:
        """First and past-the-last pixel that read a cell between the first and the last that is on."""
        places = np.flatnonzero(on)
        if not len(places):
            return 0, 1
        first = int(np.searchsorted(self._last, places[0], side="left"))
        last = int(np.searchsorted(self._first, places[-1], side="right"))
        first = min(first, len(self._first) - 1)
        return first, max(last, first + 1)

    def cells(self, pixels: Span) -> slice:
        """The cells that these pixels read."""
        return slice(int(self._first[pixels[0]]), int(self._last[pixels[1] - 1]) + 1)

    def operator(self, pixels: Span) -> Float32:
        """The product that makes these pixels of those cells."""
        part: Float32 = self._matrix[pixels[0] : pixels[1], self.cells(pixels)]
        return part
