"""From segments that overlap to one label per pixel.

A pixel's score of a class is the mean, over the segments that cover it, of their probabilities of that class. Pixels
that are covered by the same segments have the same scores, so scores are computed once per such set: nothing of the
size classes x height x width is stored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeseg.compose import NONE_LABEL
from edgeseg.schema import Size
from edgeseg.segments.runs import Runs

Float32 = npt.NDArray[np.float32]
UInt16 = npt.NDArray[np.uint16]


def label_map(runs: Runs, class_probs: Float32, whole: Float32 | None, threshold: float | None = None) -> UInt16:
    """One label per pixel.

    Args:
        runs: N masks.
        class_probs: (N, C) float32.
        whole: (C,) probabilities of the photo as one segment, which pixels without a segment take; None leaves them
            to none of the classes.
        threshold: pixels whose best score is below it belong to none of the classes.

    Returns:
        (H, W) uint16, 65535 for none of the classes.
    """
    numbers, members = covers(runs)
    labels = np.full(len(members), NONE_LABEL, np.uint16)
    for number, segments in enumerate(members):
        scores = class_probs[segments].mean(axis=0) if segments else whole
        if scores is not None and (threshold is None or scores.max() >= threshold):
            labels[number] = scores.argmax()
    return labels[numbers]


def covers(runs: Runs) -> tuple[npt.NDArray[np.int64], list[list[int]]]:
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


def _compact(
    numbers: npt.NDArray[np.int64], members: list[list[int]], size: Size
) -> tuple[npt.NDArray[np.int64], list[list[int]]]:
    """Without the numbers that no pixel has any more."""
    used, places = np.unique(numbers, return_inverse=True)
    return places.reshape(size).astype(np.int64), [members[number] for number in used]
