"""How long to warm up and to measure. A run is a call that gives its stages in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .statistics import median

Stages = dict[str, float]
Once = Callable[[], Stages]
Report = Callable[[int, int], None]

TOTAL, SEGMENT, CHAIN = "end_to_end", "segment", "chain"

TOTALS = {TOTAL: "end to end", SEGMENT: "without read and write", CHAIN: "graphs and copies"}
"""The stages that hold all others, and how they are called: every run has one or more, the longest first. That one the
warm-up rule looks at; the verdict judges all of them."""

WINDOW, TOLERANCE = 3, 0.03
WARM_LEAST_S, WARM_MOST_S, WARM_MOST_RUNS = 0.5, 60.0, 200
LEAST_RUNS, MOST_RUNS = 10, 1000
RULE = (
    f"until the medians of the last {WINDOW} runs and of the {WINDOW} before differ by at most {TOLERANCE:.0%}, and "
    f"for at least {WARM_LEAST_S} s or {WARM_MOST_RUNS} runs; else given up after {WARM_MOST_S:.0f} s or so many runs"
)


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        runs: exactly so many; None measures for `seconds`, but at least 10 and at most 1000 runs.
        seconds: see `runs`.
        warm_most_s: the warm-up gives up after that.
    """

    runs: int | None = None
    seconds: float = 30.0
    warm_most_s: float = WARM_MOST_S

    def enough(self, runs: int, elapsed_s: float) -> bool:
        """Whether to stop."""
        if self.runs is not None:
            return runs >= self.runs
        return runs >= MOST_RUNS or (runs >= LEAST_RUNS and elapsed_s >= self.seconds)

    def progress(self, runs: int, elapsed_s: float) -> tuple[int, int]:
        """(done, of): runs, or seconds."""
        return (runs, self.runs) if self.runs is not None else (int(elapsed_s), int(max(self.seconds, elapsed_s)))


@dataclass(frozen=True)
class WarmUp:
    """What was run before the measurement.

    Attributes:
        runs, elapsed_s: how much.
        settled: the rule was met; otherwise it was given up.
    """

    runs: int
    elapsed_s: float
    settled: bool


def warm_up(once: Once, effort: Effort) -> WarmUp:
    """Run until the latency is stable (`RULE`)."""
    start_s, totals_ms = time.monotonic(), list[float]()
    while True:
        stages = once()
        totals_ms.append(next(stages[name] for name in TOTALS if name in stages))
        elapsed_s = time.monotonic() - start_s
        settled, most = stable(totals_ms), elapsed_s >= effort.warm_most_s or len(totals_ms) >= WARM_MOST_RUNS
        if most or (settled and elapsed_s >= WARM_LEAST_S):
            return WarmUp(len(totals_ms), elapsed_s, settled)


def stable(totals_ms: list[float]) -> bool:
    """Whether the last runs took as long as those before."""
    if len(totals_ms) < 2 * WINDOW:
        return False
    last, before = median(totals_ms[-WINDOW:]), median(totals_ms[-2 * WINDOW : -WINDOW])
    return abs(last - before) <= TOLERANCE * before


def run(once: Once, effort: Effort, report: Report) -> tuple[dict[str, list[float]], float]:
    """Measure: stage → its milliseconds in every run, and the seconds it all took."""
    start_s, elapsed_s, count = time.monotonic(), 0.0, 0
    samples: dict[str, list[float]] = {}
    while not effort.enough(count, elapsed_s):
        for stage, value in once().items():
            samples.setdefault(stage, []).append(value)
        count, elapsed_s = count + 1, time.monotonic() - start_s
        report(*effort.progress(count, elapsed_s))
    return samples, elapsed_s
