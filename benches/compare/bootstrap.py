"""Confidence intervals by resampling. Always the same resamples, so the same files give the same interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE_PERCENT = 95.0
RESAMPLES = 4000
SEED = 0

_AT_ONCE = 200  # resamples that are held in memory

Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A value, and the limits between which it lies with `CONFIDENCE_PERCENT` confidence."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value lies in it, or on its edge."""
        return self.low <= value <= self.high


def ratio_of_medians(a_ms: Sequence[float], b_ms: Sequence[float]) -> Interval | None:
    """The median of B by the median of A; None where A's is zero, or in a resample.

    Runs that follow each other are alike (a clock that rises, another program that starts), so blocks of runs are
    drawn and not single ones: as many neighbours at once as the cube root of the number of runs, the end joined to the
    beginning.
    """
    random = np.random.Generator(np.random.PCG64(SEED))
    a, b = np.asarray(a_ms, np.float64), np.asarray(b_ms, np.float64)
    a_medians, b_medians = resampled_medians(a, random), resampled_medians(b, random)
    if np.median(a) <= 0 or a_medians.min() <= 0:
        return None
    return interval(float(np.median(b) / np.median(a)), b_medians / a_medians)


def resampled_medians(samples: Float64, random: np.random.Generator) -> Float64:
    """(RESAMPLES,) medians of as many samples again, drawn in blocks."""
    size = len(samples)
    return np.concatenate(
        [np.median(samples[blocks(size, _AT_ONCE, random)], axis=1) for _ in range(RESAMPLES // _AT_ONCE)]
    )


def blocks(size: int, count: int, random: np.random.Generator) -> Integers:
    """(count, size) indices in blocks of neighbours (circular block bootstrap)."""
    length = max(round(size ** (1 / 3)), 1)
    starts = random.integers(0, size, (count, -(-size // length)))
    indices = (starts[:, :, None] + np.arange(length)) % size
    return indices.reshape(count, -1)[:, :size].astype(np.intp)


def interval(value: float, resampled: Float64) -> Interval:
    """The percentile interval."""
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail]).tolist()
    return Interval(value, low, high)
