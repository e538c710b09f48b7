"""The result for a terminal, and for a page that shows it as it is."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]
HEAD = ("", "median s", "min..max", "first s", "peak MiB", "time", "(rounds)", "memory", "same")
NOTE = (
    "time, memory: a side's by those of the first side, so above 1 the first is better; first s: the uncounted first "
    "run, in which whatever compiles itself does so; peak: of the process since its start; same: equal labels or cosine"
)
OTHERS_PERCENT = 10.0  # more than that, and the result says so
VERDICTS = {
    "ahead": "edgeseg was faster in every round than",
    "open": "edgeseg was faster in some rounds and slower in others than",
    "behind": "edgeseg was SLOWER in every round than",
}


def lines(body: Body) -> Iterator[str]:
    """A whole result."""
    for comparison in body["comparisons"]:
        yield from comparison_lines(comparison)
        yield ""
    yield NOTE


def comparison_lines(comparison: Body) -> Iterator[str]:
    """One comparison: its title, a row for each side, why sides are missing, what the rows mean."""
    yield f"{comparison['name']}: {comparison['title']}"
    yield f"  each run: {comparison['included']}"
    rows = [HEAD, *(_row(side) for side in comparison["sides"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for first, *others in rows:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *numbers)).rstrip()
    yield from map(missing_line, comparison["left_out"])
    yield from _verdicts(comparison["sides"])
    yield from _others(comparison["sides"])
    yield from (f"  {side['title']}: {side['included']}" for side in comparison["sides"])


def missing_line(missing: Body) -> str:
    """Why a side is not in the table."""
    return f"{missing['title']}: {'failed' if missing['failed'] else 'left out'}, {missing['reason']}"


def _verdicts(sides: list[Body]) -> Iterator[str]:
    """Who was faster, of this project and each peer."""
    found = [(side["against"]["verdict"], side["title"]) for side in sides if side["against"]]
    for verdict, words in VERDICTS.items():
        titles = [title for kind, title in found if kind == verdict]
        if titles:
            yield f"{words}: {', '.join(titles)}"


def _others(sides: list[Body]) -> Iterator[str]:
    """A warning where the machine was not quiet."""
    shares = [share for side in sides for share in side["others_percent"] if share is not None]
    if max(shares, default=0.0) > OTHERS_PERCENT:
        median = statistics.median(shares)
        yield f"NOT QUIET: other programs took up to {max(shares):.0f} % of the processors (median {median:.0f} %)"


def _row(side: Body) -> tuple[str, ...]:
    peak = side["peak_bytes"]
    own = (
        side["title"],
        f"{side['median_s']:.2f}",
        f"{side['min_s']:.2f}..{side['max_s']:.2f}",
        f"{side['first_s']:.1f}",
        f"{peak / 2**20:.0f}" if peak else "-",
    )
    against = side["against"]
    if against is None:
        return (*own, "", "", "", "")
    time, memory, same = against["time_ratio"], against["memory_ratio"], against["same"]
    return (
        *own,
        f"{time['median']:.2f}",
        f"({time['low']:.2f}..{time['high']:.2f})",
        f"{memory:.2f}" if memory else "-",
        f"{same['value']:.4f}" if same else "-",
    )
