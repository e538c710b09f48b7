"""The section of costs: parameters, operations, and what was reached of the machine's roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeseg.cli.terminal import size_words

from .html import Html, join, tag
from .parts import facts, heading, remarks
from .result import Result
from .table import NOTHING, Cell, Table, milliseconds, number

_COUNTED = ("graph", "parameters M", "weights", "GMACs", "attention GMACs", "position GMACs", "FLOP per byte")
_MEASURED = ("p50 ms", "at best ms", "of the roofline", "limited by")


def model_section(results: Sequence[Result]) -> Html | None:
    """None without results."""
    return tag("section", tag("h2", "Model"), *map(_result, results)) if results else None


def _result(result: Result) -> Html:
    body = result.body
    measured = result.kind == "model"
    said = {"canvas": body["canvas"], "classes": str(body["classes"])}
    said |= {"roofline": _roofline(body["roofline"])} if measured else {}
    columns = [*_COUNTED, *(_MEASURED if measured else ())]
    rows = [[*_counted(row), *(_compared(row) if measured else ())] for row in body["graphs"]]
    doubts = [] if body.get("trusted", True) else ["not to be trusted because " + "; ".join(body["reasons"])]
    table = Table(columns, rows).html()
    return join([heading(result), facts(said), remarks(doubts, "doubt"), table, remarks(body["notes"])])


def _roofline(found: Mapping[str, Any]) -> str:
    speed, width = 2 * found["macs_per_s"] / 1e9, found["bytes_per_s"] / 1e9
    return f"{speed:,.0f} GFLOP/s and {width:,.1f} GB/s, measured in the same run ({found['how']})"


def _counted(row: Mapping[str, Any]) -> list[Cell]:
    macs = row["macs"]
    billions = [number(macs[name] / 1e9, 3) for name in ("total", "activations", "positions")]
    size = Cell(size_words(row["weights_bytes"]), number=True)
    return [Cell(row["graph"]), number(row["parameters"] / 1e6), size, *billions, number(row["flop_per_byte"], 1)]


def _compared(row: Mapping[str, Any]) -> list[Cell]:
    if row["latency_ms"] is None:
        return [number(None), number(None), number(None), Cell(NOTHING)]
    share = row["roofline_percent"]
    bar = Cell(number(share, 1, " %").text, None if share is None else share / 100, number=True)
    return [milliseconds(row["latency_ms"]), number(row["least_ms"]), bar, Cell(row["bound"] or NOTHING)]
