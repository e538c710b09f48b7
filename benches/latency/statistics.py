"""Latencies of many runs as a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DOUBT = 0.05


@dataclass(frozen=True)
class Summary:
    """Of the runs of one stage, all in milliseconds.

    Attributes:
        p50_ms, p95_ms, p99_ms: percentiles, linear between neighbouring runs.
        mean_ms, min_ms, max_ms: what they say.
        p50_low_ms, p50_high_ms: the median lies between these with 95 % confidence, whatever the distribution.
        spread_percent: the middle half of the runs, in percent of the median.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    p50_low_ms: float
    p50_high_ms: float
    spread_percent: float


def summarise(samples_ms: Sequence[float]) -> Summary:
    """The summary of at least one run."""
    ordered = np.sort(np.asarray(samples_ms, np.float64))
    low, p50, high, p95, p99 = np.percentile(ordered, [25, 50, 75, 95, 99]).tolist()
    first, last = median_ranks(len(ordered))
    return Summary(
        p50,
        p95,
        p99,
        float(ordered.mean()),
        float(ordered[0]),
        float(ordered[-1]),
        float(ordered[first]),
        float(ordered[last]),
        100 * (high - low) / p50 if p50 > 0 else 0.0,
    )


def median_ranks(count: int) -> tuple[int, int]:
    """Indices in the sorted runs between which the median lies with 95 % confidence, or a little less below six runs.

    Each run is as likely below the true median as above it, so the number of those below is binomial.
    """
    first, outside = 0, 0.0
    for index in range(count // 2):
        outside += 2 * math.comb(count, index) / 2**count
        if outside > _DOUBT:
            break
        first = index
    return first, count - 1 - first


def median(samples_ms: Sequence[float]) -> float:
    """The middle one."""
    return float(np.median(samples_ms))
