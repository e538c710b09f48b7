"""The cheapest set of blocks that must stay at a higher precision, so that no more labels change than are allowed.

1. Blocks leave the eight bits in the order of their sensitivity; bisection finds the shortest beginning of this order
   that suffices. Then those of them that cost most are put back, one at a time, where the budget still holds.
2. The rest is fp16. If that alone breaks the budget, the blocks most sensitive to fp16 compute in fp32: again the
   shortest beginning, by bisection.

In step 1 the rest is fp32, as it is on a CPU; what fp16 adds is step 2's. Every step ends with a set that was measured
on all photos, so the budget holds for them even where more precision gave a worse result on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgeseg.errors import BuildError

from .blocks import Block
from .mixture import Mixture
from .ranking import Progress, Sensitivity, half_blocks, rank
from .score import Score
from .trials import Trials

PUT_BACK = 8
"""Blocks that are tried to be put back: the most expensive ones."""


@dataclass(frozen=True)
class Try:
    """A mixture that was measured on all photos: blocks above the eight bits, blocks in fp32, and what it loses."""

    lifted: tuple[str, ...]
    single: tuple[str, ...]
    loss: float


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        mixture: of the graphs for GPUs; on a CPU no block computes in fp16.
        lifted: blocks that are not of eight bits, as the search began with. `single`: blocks that compute in fp32.
        lifted_macs, all_macs: multiply-accumulates of the lifted blocks, and of all that can be quantized.
        plain, typed: with fp32 and with fp16 around the quantized products; plain is None if nothing is quantized.
        tries: in order.
    """

    mixture: Mixture
    lifted: tuple[str, ...]
    single: tuple[str, ...]
    lifted_macs: int
    all_macs: int
    plain: Score | None
    typed: Score
    tries: tuple[Try, ...]


def least(count: int, holds: Callable[[int], bool]) -> int:
    """The smallest number up to `count` that holds, by bisection; `count` itself is known to."""
    if holds(0):
        return 0
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class Search:
    """A search for the cheapest mixture.

    Args:
        trials: to run.
        exact: the fp32 chain's score.
        budget: percent of the labels that may change; with true labels, points of mIoU that may be lost.
        progress: told of every photo.
    """

    def __init__(self, trials: Trials, exact: Score, budget: float, progress: Progress) -> None:
        self._trials, self._exact, self._budget, self._progress = trials, exact, budget, progress
        self._kind = trials.setup.kind
        self._tries: list[Try] = []
        self._lifted: tuple[str, ...] = ()

    def run(self, ranked: Sequence[Sensitivity]) -> Found:
        """Search, given the blocks by their sensitivity.

        Raises:
            BuildError: the budget holds only if no block is of a lower precision.
        """
        costs = {one.block.key: one.block.macs for one in ranked}
        quantized: frozenset[str] = frozenset()
        plain = None
        if self._kind != "fp16":
            self._lifted = self._lift([one.block for one in ranked])
            quantized = frozenset(costs) - set(self._lifted)
            plain = self._score(Mixture(quantized))
        halves = half_blocks(self._trials.setup)
        single = self._widen(quantized, halves, ranked if self._kind == "fp16" else ())
        mixture = Mixture(quantized, frozenset(block.key for block in halves) - set(single))
        typed = self._score(mixture)
        raised = single if self._kind == "fp16" else self._lifted
        macs = sum(costs[key] for key in raised)
        tries = tuple(self._tries)
        return Found(mixture, self._lifted, single, macs, sum(costs.values()), plain, typed, tries)

    def loss(self, score: Score) -> float:
        """What a score loses, in the budget's unit."""
        if score.miou_percent is None or self._exact.miou_percent is None:
            return score.different_percent
        return self._exact.miou_percent - score.miou_percent

    def _score(self, mixture: Mixture) -> Score:
        return self._trials.score(mixture, self._progress, pilots=False)

    def _lift(self, order: Sequence[Block]) -> tuple[str, ...]:
        keys = [block.key for block in order]

        def holds(lifted: Iterable[str]) -> bool:
            out = set(lifted)
            return self._holds(Mixture(frozenset(keys) - out), tuple(key for key in keys if key in out))

        with self._progress.stage(self._photos(math.ceil(math.log2(len(keys) + 1)) + 1 + PUT_BACK)):
            count = least(len(keys), lambda number: holds(keys[:number]))
            if count == len(keys):
                raise self._impossible(f"with nothing but {keys[-1]} in {self._kind}")
            lifted = set(keys[:count])
            for block in sorted(order[:count], key=lambda block: -block.macs)[:PUT_BACK]:
                if holds(lifted - {block.key}):
                    lifted -= {block.key}
        return tuple(key for key in keys if key in lifted)

    def _widen(
        self, quantized: frozenset[str], halves: Sequence[Block], ranked: Sequence[Sensitivity]
    ) -> tuple[str, ...]:
        """The blocks that must compute in fp32, most sensitive first."""
        every = frozenset(block.key for block in halves)
        with self._progress.stage(self._photos(1)):
            if self._holds(Mixture(quantized, every), self._lifted):
                return ()
        order = [one.block.key for one in ranked or rank(self._trials, "fp16", halves, self._progress)]

        def holds(count: int) -> bool:
            single = tuple(order[:count])
            return count > 0 and self._holds(Mixture(quantized, every - set(single)), self._lifted, single)

        with self._progress.stage(self._photos(math.ceil(math.log2(len(order) + 1)) + 1)):
            count = least(len(order), holds)
        if count == len(order) and not quantized:
            raise self._impossible(f"with nothing but {order[-1]} in fp16")
        return tuple(order[:count])

    def _holds(self, mixture: Mixture, lifted: tuple[str, ...], single: tuple[str, ...] = ()) -> bool:
        loss = self.loss(self._score(mixture))
        self._tries.append(Try(lifted, single, loss))
        return loss <= self._budget

    def _photos(self, trials: int) -> int:
        return trials * len(self._trials.all)

    def _impossible(self, least_changed: str) -> BuildError:
        unit = "percent of the labels differ" if self._exact.miou_percent is None else "points of mIoU are lost"
        reached = f"{least_changed}, {self._tries[-1].loss:.3g} {unit}; with all of it, {self._tries[0].loss:.3g}"
        todo = f"allow more, or use --precision {'fp16' if self._kind != 'fp16' else 'fp32'}"
        return BuildError(f"stay within a budget of {self._budget:g}", f"nothing would be left: {reached}", todo)
