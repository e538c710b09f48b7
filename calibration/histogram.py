"""A histogram of magnitudes whose bins need no range: the upper bits of a float32 number its bin.

Eight bits of exponent and eight of mantissa make 65,536 bins, each 0.4 % wide, from the smallest float32 to the
largest, so tensors of any scale are counted in one pass and any two histograms can be added.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BINS = 1 << 16
PERCENTILES = (99.9, 99.99, 99.999)
"""Candidates for the range, beside the largest magnitude."""

_SHIFT = 15
_UNFIT = 0xFF00  # from here on the bins hold infinities and NaN
_CHUNK = 1 << 20
_EDGES: Float32 = (np.arange(_UNFIT + 1, dtype=np.uint32) << _SHIFT).view(np.float32)  # the last edge is infinity


def count(values: Float32) -> Int64:
    """How many of the values' magnitudes fall into each bin, (BINS,)."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    total = np.zeros(BINS, np.int64)
    for start in range(0, flat.size, _CHUNK):
        bins = (flat[start : start + _CHUNK] & np.uint32(0x7FFFFFFF)) >> np.uint32(_SHIFT)
        total += np.bincount(bins, minlength=BINS)
    return total


def is_finite(histogram: Int64) -> bool:
    """Whether no infinity and no NaN was counted."""
    return not histogram[_UNFIT:].any()


def percentile(histogram: Int64, percent: float) -> float:
    """The magnitude that `percent` of the values do not exceed, rounded up to the edge of its bin."""
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    place = int(np.searchsorted(np.cumsum(histogram), np.ceil(total * percent / 100.0)))
    return float(_EDGES[min(place + 1, _UNFIT - 1)])


def error(histogram: Int64, limit: float, levels: float) -> float:
    """Mean squared error of rounding to `levels` steps up to `limit` and clipping there.

    A value below half a step becomes zero, one above the limit becomes the limit, and between them the error of
    rounding is evenly distributed.
    """
    middle = (_EDGES[:_UNFIT].astype(np.float64) + np.minimum(_EDGES[1:], np.finfo(np.float32).max)) / 2
    step = limit / levels
    lost = np.where(middle < step / 2, middle**2, step**2 / 12)
    lost = np.where(middle > limit, (middle - limit) ** 2, lost)
    filled = histogram[:_UNFIT] > 0
    return float((lost[filled] * histogram[:_UNFIT][filled]).sum() / max(int(histogram.sum()), 1))


def best_range(histogram: Int64, largest: float, levels: float) -> tuple[float, str]:
    """The candidate range with the least error, and its name: "99.9", "99.99", "99.999" or "max"."""
    candidates = {f"{percent:g}": percentile(histogram, percent) for percent in PERCENTILES}
    candidates = {name: value for name, value in candidates.items() if value < largest} | {"max": largest}
    name = min(candidates, key=lambda key: (error(histogram, candidates[key], levels), -candidates[key]))
    return candidates[name], name
