"""How much every block changes when it alone goes to a lower precision, the most sensitive block first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgeseg.errors import BuildError
from edgeseg.pipelines import get_pipeline

from ..makers import KEPT_FP32
from ..tap import sites_of
from .blocks import Block, all_blocks, quantized_blocks
from .mixture import Mixture
from .score import Score, badness
from .trials import Setup, Trials


@dataclass(frozen=True)
class Sensitivity:
    """A block, and what it does when nothing else is of a lower precision."""

    block: Block
    score: Score


class Progress:
    """Counts photos that ran, over stages whose lengths are known one after the other.

    Args:
        report: takes how many are done and how many there are.
    """

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report, self._done, self._total = report, 0, 0

    def __call__(self) -> None:
        """One more."""
        self._done += 1
        self._report(self._done, max(self._total, self._done))

    @contextmanager
    def stage(self, count: int) -> Iterator[None]:
        """A stage of at most `count`."""
        start = self._done
        self._total = start + count
        self._report(self._done, self._total)
        yield
        self._total = self._done


def blocks_of(setup: Setup) -> list[Block]:
    """The blocks that can go to the setup's precision, in the order of the chain. Raises BuildError without any."""
    if setup.kind == "fp16":
        return half_blocks(setup)
    names = set(setup.ranges.graphs) if setup.ranges else set()
    nets = sites_of(setup.bundle, setup.photos.items[0].placement.canvas, names)
    found = [block for net, sites in nets.values() for block in quantized_blocks(net, sites)]
    if not found:
        asked = f"measure {setup.bundle.path} in {setup.kind}"
        raise BuildError(asked, "the ranges name no graph of it", "calibrate this bundle with --images")
    return found


def half_blocks(setup: Setup) -> list[Block]:
    """The blocks that can compute in fp16, in the order of the chain."""
    names = set(get_pipeline(setup.bundle.manifest).graphs) - KEPT_FP32
    nets = sites_of(setup.bundle, setup.photos.items[0].placement.canvas, names)
    return [block for net, sites in nets.values() for block in all_blocks(net, sites)]


def alone(kind: str, *keys: str) -> Mixture:
    """The mixture in which these blocks, and nothing else, are of this precision."""
    return Mixture(half=frozenset(keys)) if kind == "fp16" else Mixture(quantized=frozenset(keys))


def rank(trials: Trials, kind: str, blocks: Sequence[Block], progress: Progress) -> list[Sensitivity]:
    """Every block by itself on the pilots; by how many labels it changes, then by how far it moves a tensor."""
    with progress.stage(len(blocks) * len(trials.pilots)):
        scores = [trials.score(alone(kind, block.key), progress, pilots=True) for block in blocks]
    found = [Sensitivity(block, score) for block, score in zip(blocks, scores, strict=True)]
    return sorted(found, key=lambda one: (-one.score.different_percent, -badness(one.score.worst[1].relative)))
