"""What the turns say: medians, ratios with their spread, memory, and whether the sides gave the same result.

Every ratio is a side's figure by that of the comparison's first side, so above 1 the first is better. A ratio is that
of the medians; its spread is the lowest and the highest ratio of two runs of one round.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from .side import Array, Comparison, Side
from .turns import Turns, output_file

Body = dict[str, Any]


def summarise(comparison: Comparison, turns: Turns, work: Path) -> Body:
    """One comparison as plain JSON.

    Args:
        comparison: of which some sides may be missing.
        turns: what was measured.
        work: the folder in which the results lie.
    """
    first = comparison.sides[0].name
    measured = [side for side in comparison.sides if side.name in turns.ended]
    reasons = {**turns.absent, **turns.failed}
    return {
        "name": comparison.name,
        "title": comparison.title,
        "included": comparison.included,
        "sides": [_side(side, turns) | {"against": _against(side, first, turns, work)} for side in measured],
        "left_out": [
            {"name": side.name, "title": side.title, "reason": reasons[side.name], "failed": side.name in turns.failed}
            for side in comparison.sides
            if side.name in reasons
        ],
    }


def save(body: Body, output: Path | None) -> None:
    """Write a result as JSON, where a place is named for it."""
    if output:
        output.write_text(json.dumps(body, indent=1) + "\n")


def _side(side: Side, turns: Turns) -> Body:
    seconds = turns.seconds(side.name)
    return {
        "name": side.name,
        "title": side.title,
        "included": side.included,
        "ours": side.ours,
        **turns.opened[side.name],
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "others_percent": [run["others_percent"] for run in turns.runs[side.name]],
        **turns.ended[side.name],
    }


def _against(side: Side, first: str, turns: Turns, work: Path) -> Body | None:
    """How a side stands to the first; None for the first itself, and where it was not measured."""
    if side.name == first or first not in turns.ended:
        return None
    time = time_ratio(turns.seconds(side.name), turns.seconds(first))
    peaks = [turns.ended[name]["peak_bytes"] for name in (side.name, first)]
    outputs = (np.load(output_file(work, name), allow_pickle=False) for name in (side.name, first))
    return {
        "name": first,
        "time_ratio": time,
        "memory_ratio": peaks[0] / peaks[1] if all(peaks) else None,
        "verdict": None if side.ours else verdict(time),
        "same": same(*outputs),
    }


def time_ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Ratio of the medians, and the lowest and highest of the rounds."""
    pairs = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(theirs) / statistics.median(ours), "low": min(pairs), "high": max(pairs)}


def verdict(ratio: dict[str, float]) -> str:
    """Of ours against a peer: "ahead" if it was faster in every round, "behind" if slower in every, else "open"."""
    if ratio["low"] > 1:
        return "ahead"
    return "behind" if ratio["high"] < 1 else "open"


def same(theirs: Array, ours: Array) -> Body | None:
    """Share of equal labels, or the cosine of two float arrays; None where their shapes differ."""
    if theirs.shape != ours.shape:
        return None
    if np.issubdtype(ours.dtype, np.integer):
        return {"measure": "equal labels", "value": float((theirs == ours).mean())}
    a, b = (x.astype(np.float64).ravel() for x in (theirs, ours))
    return {"measure": "cosine", "value": float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))}
