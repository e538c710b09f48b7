"""Compares two latency results, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .bootstrap import Interval, ratio_of_medians

Measurement = Mapping[str, Any]


def compare_latencies(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Each measurement of A with B's of as many classes and images at once, and notes on the rest.

    The list is empty if no two belong together.
    """
    found_a, found_b = _by_load(a), _by_load(b)
    rows = [_row(load, found_a[load], found_b[load]) for load in found_a if load in found_b]
    notes = [note for load in found_a if load in found_b for note in _doubts(load, found_a[load], found_b[load])]
    alone = [(load, "A") for load in found_a if load not in found_b]
    alone += [(load, "B") for load in found_b if load not in found_a]
    return rows, notes + [f"only {side} was measured with {_words(load)}" for load, side in alone]


def verdict(found: Interval | None) -> str:
    """What a ratio shows."""
    if found is None:
        return "no ratio"
    if found.holds(1):
        return "no difference shown"
    return "B is faster" if found.high < 1 else "B is slower"


def _by_load(body: Mapping[str, Any]) -> dict[tuple[int, int], Measurement]:
    return {(row["classes"], row["batch"]): row for row in body["measurements"]}


def _words(load: tuple[int, int]) -> str:
    classes, batch = load
    return f"{classes} classes" + (f" and {batch} images at once" if batch > 1 else "")


def _row(load: tuple[int, int], a: Measurement, b: Measurement) -> dict[str, Any]:
    others = {stage["name"]: stage for stage in (*b["totals"], *b["stages"])}
    shared = [stage for stage in (*a["totals"], *a["stages"]) if stage["name"] in others]
    said = {"classes": load[0], "batch": load[1], "a_runs": a["runs"], "b_runs": b["runs"]}
    stages = [_stage(stage, others[stage["name"]]) for stage in shared]
    return {**said, "a_trusted": a["trusted"], "b_trusted": b["trusted"], "stages": stages}


def _stage(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    found = ratio_of_medians(a["samples_ms"], b["samples_ms"])
    limits = (None, None, None) if found is None else (found.value, found.low, found.high)
    rounded = [None if value is None else round(value, 4) for value in limits]
    numbers = dict(zip(("ratio", "ratio_low", "ratio_high"), rounded, strict=True))
    medians = {"a_p50_ms": a["p50_ms"], "b_p50_ms": b["p50_ms"]}
    return {"name": a["name"], "part_of": a["part_of"], **medians, **numbers, "verdict": verdict(found)}


def _doubts(load: tuple[int, int], a: Measurement, b: Measurement) -> Iterator[str]:
    for side, row in (("A", a), ("B", b)):
        if not row["trusted"]:
            yield f"{side} with {_words(load)} is not to be trusted because {'; '.join(row['reasons'])}"
    only = {stage["name"] for stage in a["stages"]} ^ {stage["name"] for stage in b["stages"]}
    if only:
        yield f"with {_words(load)} only one of the two has the stages {', '.join(sorted(only))}"
