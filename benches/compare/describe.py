"""A comparison as the lines a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..report.stages import stage_level, stage_words


def lines(body: dict[str, Any]) -> Iterator[str]:
    """A whole comparison."""
    for side in ("a", "b"):
        one = body[side]
        yield f"{side.upper()}: {one['model']} {one['precision']} on {one['backend']} {one['device']} ({one['file']})"
    for one in body["differences"]:
        yield f"not measured alike: {one['what']} is {one['a']} in A and {one['b']} in B"
    for one in body["settings"]:
        yield f"asked differently: {one['what']} is {one['a']} in A and {one['b']} in B"
    yield from _latency(body) if "measurements" in body else _accuracy(body)
    yield from (f"note: {note}" for note in body["notes"])


def _latency(body: dict[str, Any]) -> Iterator[str]:
    for row in body["measurements"]:
        batch = f", {row['batch']} images at once" if row["batch"] > 1 else ""
        yield ""
        yield f"{row['classes']} classes{batch}: {row['a_runs']} runs of A, {row['b_runs']} of B"
        header = ["", "A ms", "B ms", "B / A", f"{body['confidence_percent']:.0f} % interval", ""]
        yield from _table([header, *map(_stage, row["stages"])])


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells, last]).rstrip()


def _stage(stage: dict[str, Any]) -> list[str]:
    label = "  " * stage_level(stage) + stage_words(stage)
    medians = [f"{stage[key]:.2f}" for key in ("a_p50_ms", "b_p50_ms")]
    if stage["ratio"] is None:
        return [label, *medians, "-", "-", stage["verdict"]]
    limits = f"{stage['ratio_low']:.3f} to {stage['ratio_high']:.3f}"
    return [label, *medians, f"{stage['ratio']:.3f}", limits, stage["verdict"]]


def _accuracy(body: dict[str, Any]) -> Iterator[str]:
    dataset = body["dataset"]
    yield f"mIoU on {dataset['name']}, {dataset['images']} images"
    for convention, row in body["miou"].items():
        if row["difference_percent"] is None:
            yield f"  {convention}: no number"
            continue
        limits = ""
        if row["low_percent"] is not None:
            limits = f" ({body['confidence_percent']:.0f} %: {row['low_percent']:+.3f} to {row['high_percent']:+.3f})"
        both = f"{row['a_miou_percent']:.2f} % and {row['b_miou_percent']:.2f} %"
        yield f"  {convention}: {both}, difference {row['difference_percent']:+.3f}{limits}: {row['verdict']}"
