"""Times several ways to do one thing against each other: in turns, so that a change of clocks meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WARM_UP = 2  # runs of each that do not count
LEAST_ROUNDS, MOST_ROUNDS = 7, 50
BUDGET_S = 10.0  # of rounds beyond the least, for one graph and canvas
LOST_AFTER, LOST = 3, 1.5  # after so many rounds, what takes so many times as long as the fastest is not run again

Clock = Callable[[], float]


@dataclass(frozen=True)
class Speed:
    """How many times as fast one is as another, over the rounds in which both ran: median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def measure(runs: Mapping[str, Callable[[], object]], clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of each run in each round, by name; the same round of two names is comparable.

    Args:
        runs: name → what to run, to its end.
        clock: seconds; for tests.
    """
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    racing, start = list(runs), clock()
    for turn in range(MOST_ROUNDS):
        if turn >= LEAST_ROUNDS and clock() - start > BUDGET_S:
            break
        for name in racing if turn % 2 == 0 else racing[::-1]:
            seconds[name].append(_timed(runs[name], clock))
        if turn + 1 == LOST_AFTER:
            fastest = min(statistics.median(values) for values in seconds.values())
            racing = [name for name in racing if statistics.median(seconds[name]) <= LOST * fastest]
    return seconds


def _timed(run: Callable[[], object], clock: Clock) -> float:
    before = clock()
    run()
    return clock() - before


def added(parts: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The rounds of several measurements (canvases) put together, round by round."""
    names = parts[0] if parts else {}
    return {name: [sum(round_) for round_ in zip(*(part[name] for part in parts), strict=False)] for name in names}


def speed(mine: Sequence[float], other: Sequence[float]) -> Speed:
    """How many times as fast `mine` is as `other`, seconds per round."""
    ratios = sorted(b / a for a, b in zip(mine, other, strict=False))
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Speed(statistics.median(ratios), low, high)
