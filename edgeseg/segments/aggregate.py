"""From segments that overlap to one label per pixel.

A pixel's score of a class is the mean, over the segments that cover it, of their probabilities of that class. Pixels
that are covered by the same segments have the same scores, so scores are computed once per such set: nothing of the
size classes x height x width is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.compose import NONE_LABEL, Composition
from edgeseg.placement import Placement
from edgeseg.schema import Size
from edgeseg.segments.runs import Runs

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_STRIP = 32


@dataclass(frozen=True, eq=False)
class ClassedSegments:
    """Segments and their classes; see `edgeseg.segmentation.Evidence`.

    Attributes:
        runs: N masks.
        class_probs: (N, C) float32.
        whole: (C,) float32, probabilities of the photo as one segment, which pixels without a segment take; None
            leaves these to none of the classes.
        names: C class names.
        placement: where the photo lies on the canvas.
    """

    runs: Runs
    class_probs: Float32
    whole: Float32 | None
    names: tuple[str, ...]
    placement: Placement

    def compose(self, threshold: float | None = None) -> Composition:
        """The label map; pixels whose best score is below the threshold belong to none of the classes."""
        numbers, bare, scores = self._scored()
        labels, best = scores.argmax(axis=1).astype(np.uint16), scores.max(axis=1)
        none = bare if self.whole is None else np.zeros_like(bare)
        if threshold is not None:
            none |= best < threshold
        labels[none] = NONE_LABEL
        made = labels[numbers]
        areas = np.bincount(made[made != NONE_LABEL], minlength=len(self.names)).astype(np.int64)
        return Composition(made, areas, None if threshold is None else best[numbers])

    def scores(self) -> Iterator[tuple[slice, slice, Float32]]:
        """Every class's score at every pixel of the photo, as (y, x, (rows, columns, C) float32) tiles."""
        numbers, _, scores = self._scored()
        height, width = numbers.shape
        for top in range(0, height, _STRIP):
            y = slice(top, min(top + _STRIP, height))
            yield y, slice(0, width), scores[numbers[y]]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`counts`, `starts` (docs/segments.md), `class_probs` (N, C), and `whole_probs` (C,), or (0,) for None."""
        whole = np.zeros(0, np.float32) if self.whole is None else self.whole
        counts, starts = self.runs.counts, self.runs.starts
        return {"counts": counts, "starts": starts, "class_probs": self.class_probs, "whole_probs": whole}

    def _scored(self) -> tuple[Int64, npt.NDArray[np.bool_], Float32]:
        """(H, W) numbers of sets of segments; of each set whether it is empty, and its scores (C,)."""
        numbers, members = covers(self.runs)
        rest = np.zeros(len(self.names), np.float32) if self.whole is None else self.whole
        rows = [self.class_probs[segments].mean(axis=0) if segments else rest for segments in members]
        return numbers, np.array([not segments for segments in members]), np.stack(rows)


def covers(runs: Runs) -> tuple[Int64, list[list[int]]]:
    """Which segments cover which pixels: (H, W) numbers, and for each number the segments, ascending."""
    numbers = np.zeros(runs.size, np.int64)
    members: list[list[int]] = [[]]
    for index in range(len(runs)):
        mask = runs.mask(index)
        inside = numbers[mask]
        old, place = np.unique(inside, return_inverse=True)
        numbers[mask] = len(members) + place
        members += [[*members[number], index] for number in old]
    return _compact(numbers, members, runs.size)


def _compact(numbers: Int64, members: list[list[int]], size: Size) -> tuple[Int64, list[list[int]]]:
    """Without the numbers that no pixel has any more."""
    used, places = np.unique(numbers, return_inverse=True)
    return places.reshape(size).astype(np.int64), [members[number] for number in used]
