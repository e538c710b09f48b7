"""A measurement as plain JSON (docs/json.md) and as the lines a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeseg.cli.terminal import size_words

from .effort import TOTALS

_SWEPT = ("graphs", "compose")
_COLUMNS = ("p50", "p95", "p99", "mean", "min")


def lines(body: dict[str, Any]) -> Iterator[str]:
    """A whole result."""
    image, rows = body["image"], body["measurements"]
    yield f"{body['model']} {body['precision']} on {body['backend']}: {body['device_name']}"
    yield f"image {image['size']}, resized to {image['resized']}, on the canvas {image['canvas']}"
    kinds: set[str] = set()
    for row in rows:
        kind = row["totals"][0]["name"]
        yield ""
        yield from measurement_lines(row, explained=kind not in kinds)
        kinds.add(kind)
    if len(rows) > 1:
        yield ""
        yield from sweep_lines(rows)


def measurement_lines(row: dict[str, Any], *, explained: bool) -> Iterator[str]:
    """One measurement: a table of its stages (`explained`: what each includes), memory, and whether to trust it."""
    warmup = row["warmup"]
    settled = "" if warmup["settled"] else ", which did not settle"
    what = [f"{row['classes']} classes"] + ([f"{row['batch']} images at once"] if row["batch"] > 1 else [])
    yield f"{', '.join(what)}: {row['runs']} runs after {warmup['runs']} of warm-up{settled}"
    names = [*row["totals"], *row["stages"]]
    width = max(len(_label(item)) for item in names)
    yield " " * width + "".join(f"{column:>10}" for column in _COLUMNS) + "  ms"
    for item in names:
        values = "".join(f"{item[f'{column}_ms']:10.2f}" for column in _COLUMNS)
        yield f"{_label(item):{width}}{values}" + (f"  {item['included']}" if explained else "")
    yield from memory_lines(row["memory"])
    yield from verdict_lines(row)


def sweep_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Several measurements, one a line."""
    yield f"{'classes':>8}{'batch':>6}{'p50':>10}{'p95':>10}{'graphs':>10}{'compose':>10}  ms"
    for row in rows:
        found = {item["name"]: item for item in (*row["totals"], *row["stages"])}
        total = row["totals"][0]
        parts = "".join(f"{found[name]['p50_ms']:10.2f}" if name in found else f"{'-':>10}" for name in _SWEPT)
        trust = "" if row["trusted"] else "  not to be trusted"
        yield f"{row['classes']:8}{row['batch']:6}{total['p50_ms']:10.2f}{total['p95_ms']:10.2f}{parts}{trust}"


def memory_lines(memory: dict[str, Any]) -> Iterator[str]:
    """Peaks, where there are any."""
    if memory["host_peak_bytes"] is not None:
        yield f"host memory: at most {size_words(memory['host_peak_bytes'])} since {memory['host_since']}"
    if memory["device_peak_bytes"] is not None:
        yield f"GPU memory: {size_words(memory['device_peak_bytes'])} more than before"


def verdict_lines(row: dict[str, Any]) -> Iterator[str]:
    """Whether to trust it, and notes."""
    yield "trusted" if row["trusted"] else "not to be trusted because " + "; ".join(row["reasons"])
    yield from (f"note: {note}" for note in row["notes"])


def _label(item: dict[str, Any]) -> str:
    indent = "" if item["name"] in TOTALS else "  " if item["part_of"] is None else "    "
    return f"{indent}{TOTALS.get(item['name'], item['name'])}"
