"""Masks as run lengths: column by column from the first pixel, the first run outside of the mask, as COCO has them.

A photo's masks as pictures are a hundred times as large.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.schema import Size

Bool = npt.NDArray[np.bool_]
UInt32 = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Runs:
    """N masks of one size.

    Attributes:
        size: (H, W) of every mask.
        counts: uint32, the run lengths of all masks, one mask after the other.
        starts: (N + 1,) int64; mask i has counts[starts[i]:starts[i + 1]], which sum up to H * W.
    """

    size: Size
    counts: UInt32
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, index: int) -> UInt32:
        """The run lengths of one mask."""
        part: UInt32 = self.counts[self.starts[index] : self.starts[index + 1]]
        return part

    def mask(self, index: int) -> Bool:
        """One mask, (H, W) bool."""
        runs = self.of(index)
        inside = np.arange(len(runs)) % 2 == 1
        return np.repeat(inside, runs).reshape(self.size[1], self.size[0]).T

    def areas(self) -> npt.NDArray[np.int64]:
        """(N,) pixels inside each mask."""
        return np.array([self.of(i)[1::2].sum(dtype=np.int64) for i in range(len(self))], np.int64)

    def boxes(self) -> npt.NDArray[np.int32]:
        """(N, 4) left, top, right, bottom; right and bottom lie outside. All zeros for an empty mask."""
        return np.array([self._box(i) for i in range(len(self))], np.int32).reshape(-1, 4)

    def _box(self, index: int) -> tuple[int, int, int, int]:
        height, ends = self.size[0], np.cumsum(self.of(index), dtype=np.int64)
        first, last = ends[:-1:2], ends[1::2]
        first, last = first[last > first], last[last > first] - 1
        if not len(first):
            return 0, 0, 0, 0
        wraps = bool((first // height != last // height).any())  # a run over a column's end fills its bottom and a top
        top, bottom = (0, height - 1) if wraps else ((first % height).min(), (last % height).max())
        return int(first[0] // height), int(top), int(last[-1] // height) + 1, int(bottom) + 1

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Runs:
        """Some of the masks, in this order."""
        return pack([self.of(int(i)) for i in indices], self.size)


def pack(masks: Sequence[UInt32], size: Size) -> Runs:
    """Run lengths mask by mask as one value."""
    starts = np.concatenate(([0], np.cumsum([len(one) for one in masks], dtype=np.int64))).astype(np.int64)
    counts = np.concatenate([*masks, np.zeros(0, np.uint32)]).astype(np.uint32)
    return Runs(size, counts, starts)


def encode(mask: Bool) -> UInt32:
    """The run lengths of an (H, W) mask."""
    flat = np.asarray(mask, bool).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], changes, [flat.size]))
    runs = np.diff(bounds).astype(np.uint32)
    return np.concatenate((np.zeros(1, np.uint32), runs)) if flat[0] else runs


def encode_all(masks: Iterable[Bool], size: Size) -> Runs:
    """The run lengths of (H, W) masks."""
    return pack([encode(mask) for mask in masks], size)


def check(runs: Runs, asked: str) -> Runs:
    """The same value, if every mask's runs fill its picture exactly; it may come from a stranger.

    Raises:
        InputError: they do not, or the offsets are out of order.
    """
    starts, pixels = runs.starts, runs.size[0] * runs.size[1]
    todo = "make it again with `edgeseg segments`"
    if min(runs.size) < 1 or starts[0] != 0 or starts[-1] != len(runs.counts) or (np.diff(starts) < 1).any():
        raise InputError(asked, "its masks' run lengths are damaged", todo)
    totals = np.add.reduceat(runs.counts.astype(np.int64), starts[:-1]) if len(runs) else np.zeros(0, np.int64)
    if (totals != pixels).any():
        wrong = int(np.flatnonzero(totals != pixels)[0])
        found = f"mask {wrong} has {totals[wrong]} pixels, and a photo of {runs.size[0]}x{runs.size[1]} has {pixels}"
        raise InputError(asked, found, todo)
    return runs
