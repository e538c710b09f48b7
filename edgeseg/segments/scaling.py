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
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are the last pixels inside


@dataclass(frozen=True, eq=False)
class Part:
    """What is needed of a small mask to know where its resized logits exceed a limit.

    Attributes:
        rows, columns: first and past-the-last pixel that can; at least one.
        cells: the logits that these pixels read.
    """

    rows: Span
    columns: Span
    cells: Float32


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

    def part(self, logits: Float32, limit: float) -> Part:
        """The part of a mask, (cells, cells), where the resized logits can exceed `limit`.

        A resized value is a weighted mean of cells, so it stays below the limit where all of its cells do.
        """
        rows, columns = self._reach(logits > limit)
        return Part(rows, columns, logits[self._rows.cells(rows), self._columns.cells(columns)].copy())

    def bounds(self, logits: Float32) -> tuple[Box, Box | None]:
        """Two boxes between which that of the resized mask lies, where logits are positive; without resizing it.

        Pixels that read no positive cell are outside. Those that read the middle of 3x3 positive cells and nothing else
        than these are inside; None if there is none.
        """
        over: npt.NDArray[np.bool_] = logits > 0
        rows, columns = self._reach(over)
        outer = (columns[0], rows[0], columns[1] - 1, rows[1] - 1)
        wide = over[:, :-2] & over[:, 1:-1] & over[:, 2:]
        middles = wide[:-2] & wide[1:-1] & wide[2:]
        down = self._rows.certain(np.flatnonzero(middles.any(axis=1)) + 1)
        across = self._columns.certain(np.flatnonzero(middles.any(axis=0)) + 1)
        inner = None if down is None or across is None else (across[0], down[0], across[1], down[1])
        return outer, inner

    def _reach(self, over: npt.NDArray[np.bool_]) -> tuple[Span, Span]:
        return self._rows.reach(np.any(over, axis=1)), self._columns.reach(np.any(over, axis=0))

    def window(self, part: Part) -> Window:
        """The logits of a part at the photo's size."""
        left, right = self._rows.operator(part.rows), self._columns.operator(part.columns)
        values = np.asarray(left @ part.cells @ right.T, np.float32)
        return Window(part.rows[0], part.columns[0], values)


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

    def certain(self, places: npt.NDArray[np.intp]) -> Span | None:
        """First and last pixel that reads the first, or the last, of these middles of three cells and no fourth one."""
        if not len(places):
            return None
        low = int(np.searchsorted(self._first, places[0] - 1, side="left"))
        high = int(np.searchsorted(self._last, places[-1] + 1, side="right")) - 1
        if low >= len(self._last) or high < 0 or self._last[low] > places[0] + 1 or self._first[high] < places[-1] - 1:
            return None
        return low, high

    def cells(self, pixels: Span) -> slice:
        """The cells that these pixels read."""
        return slice(int(self._first[pixels[0]]), int(self._last[pixels[1] - 1]) + 1)

    def operator(self, pixels: Span) -> Float32:
        """The product that makes these pixels of those cells."""
        part: Float32 = self._matrix[pixels[0] : pixels[1], self.cells(pixels)]
        return part
