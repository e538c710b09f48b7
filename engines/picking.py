"""Which precision of a graph is taken: the fastest of those that pass; where the times do not tell, the most exact."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .timing import Speed, speed

EXACT_FIRST = ("fp32", "fp16", "mixed", "int8", "fp8")
LEAST_GAIN = 1.02  # what is less than this many times as fast is not worth a digit


@dataclass(frozen=True)
class Candidate:
    """A graph in one precision.

    Attributes:
        graph, precision: which.
        found: how far it is from the reference, in words.
        passes: alone, on the inputs that an exact chain gives it.
        closeness: of its furthest tensor, at most 1.
        seconds: of all canvases together, per round; empty if it was not timed.
        obtained: what the compiler made of it, kind → precision → how many.
        differences: where that is not what the graph asks for.
        same_as: the more exact precision whose graph is the same; "" if there is none.
    """

    graph: str
    precision: str
    found: str
    passes: bool
    closeness: float
    seconds: tuple[float, ...] = ()
    obtained: Mapping[str, Mapping[str, int]] | None = None
    differences: tuple[str, ...] = ()
    same_as: str = ""


@dataclass(frozen=True)
class Row:
    """A candidate in the table: its median time, its speed against the one taken, and why it was taken or was not."""

    candidate: Candidate
    chosen: bool
    reason: str
    median_ms: float | None = None
    against: Speed | None = None


def pick(candidates: Sequence[Candidate], barred: frozenset[str] = frozenset()) -> Candidate | None:
    """The one to take, of one graph; None if none passes.

    Args:
        candidates: in the order of `EXACT_FIRST`.
        barred: precisions that pass alone and not together with the other graphs.
    """
    best: Candidate | None = None
    for candidate in candidates:
        if not candidate.passes or candidate.same_as or candidate.precision in barred:
            continue
        if best is None or _pays(candidate, best):
            best = candidate
    return best


def _pays(candidate: Candidate, best: Candidate) -> bool:
    gain = speed(candidate.seconds, best.seconds)
    return gain.low > 1 and gain.median >= LEAST_GAIN


def explain(candidates: Sequence[Candidate], best: Candidate, barred: Mapping[str, str]) -> list[Row]:
    """The table's rows of one graph. `barred`: precision → what was wrong with the whole chain."""
    return [_row(candidate, best, candidates, barred) for candidate in candidates]


def _row(candidate: Candidate, best: Candidate, candidates: Sequence[Candidate], barred: Mapping[str, str]) -> Row:
    name, taken = candidate.precision, best.precision
    row = Row(candidate, candidate is best, "")
    if candidate.same_as:
        return replace(row, reason=f"the same graph as {candidate.same_as}")
    if candidate is best:
        return replace(row, reason=_praise(candidate, candidates), median_ms=_median_ms(candidate))
    gain = speed(candidate.seconds, best.seconds)
    row = replace(row, median_ms=_median_ms(candidate), against=gain)
    if not candidate.passes:
        return replace(row, reason=f"fails: {candidate.found}")
    if name in barred:
        return replace(row, reason=f"passes alone, but not with the other graphs: {barred[name]}")
    less_exact = EXACT_FIRST.index(name) > EXACT_FIRST.index(taken)
    return replace(row, reason=f"{name} {gain.median:.2f}x of {taken}: {'does not pay' if less_exact else 'slower'}")


def _median_ms(candidate: Candidate) -> float:
    return 1e3 * statistics.median(candidate.seconds)


def _praise(best: Candidate, candidates: Sequence[Candidate]) -> str:
    """Why the best one is taken, against the most exact one that passes."""
    passing = [one for one in candidates if one.passes and not one.same_as]
    if len(passing) == 1:
        return "taken: the only one that passes"
    if best is passing[0]:
        return "taken: none that passes is faster"
    return f"taken: {speed(best.seconds, passing[0].seconds)} of {passing[0].precision}"
