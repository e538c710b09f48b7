"""A whole study: the fp32 chain, every block by itself, all of them together, and the search for a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..calibrate import workplace
from .budget import Found, Search
from .ranking import Progress, Sensitivity, alone, blocks_of, rank
from .score import Score
from .trials import Clock, Setup, Trials


@dataclass(frozen=True)
class Study:
    """What was found.

    Attributes:
        setup: what was measured, and on what. `pilots`: how many photos rank the blocks.
        exact: the fp32 chain's score on all photos.
        together: with every block of the lower precision, on the pilots.
        ranked: the blocks, the most sensitive first.
        budget: what was allowed; None if nothing was searched for. `found`: what the search gave.
    """

    setup: Setup
    pilots: int
    exact: Score
    together: Score
    ranked: tuple[Sensitivity, ...]
    budget: float | None = None
    found: Found | None = None


def study(
    setup: Setup,
    report: Callable[[int, int], None],
    budget: float | None = None,
    time_limit_s: float = math.inf,
) -> Study:
    """Measure the blocks, and search for the cheapest mixture if there is a budget.

    What is done so far is kept beside the bundle, in `.NAME.sensitivity`, until the study is complete; the same study
    goes on from there, with another budget too.

    Args:
        setup: what to measure.
        report: called with how many runs of the chain are done, and how many there will be at most.
        budget: percent of the labels that may differ from fp32's, or with true labels the points of mIoU to lose.
        time_limit_s: after that long it stops with an error, to be continued.

    Raises:
        BuildError: the time is over, or the budget cannot be held. StorageError: the disk is full.
    """
    asked = f"measure {setup.bundle.path}"
    with workplace(setup.bundle, "sensitivity", asked) as folder:
        trials, progress = Trials(setup, folder, Clock(time_limit_s)), Progress(report)
        blocks = blocks_of(setup)
        with progress.stage(len(trials.all)):
            exact = trials.exact(progress)
        ranked = rank(trials, setup.kind, blocks, progress)
        with progress.stage(len(trials.pilots)):
            together = trials.score(alone(setup.kind, *(block.key for block in blocks)), progress, pilots=True)
        found = Search(trials, exact, budget, progress).run(ranked) if budget is not None else None
    return Study(setup, len(trials.pilots), exact, together, tuple(ranked), budget, found)
