"""The section of latencies: for each measurement a bar for every stage, what it includes, and whether to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeseg.cli.terminal import size_words

from .html import Html, join, tag
from .parts import details, facts, heading, remarks
from .result import Result
from .stages import stage_level, stage_words
from .table import Cell, Table, milliseconds, number

_UNITS = {"clock_mhz": "MHz", "temperature_c": "°C", "power_w": "W", "utilization_percent": "%"}


def latency_section(results: Sequence[Result]) -> Html | None:
    """None without results."""
    return tag("section", tag("h2", "Latency"), *map(_result, results)) if results else None


def _result(result: Result) -> Html:
    body, image = result.body, result.body["image"]
    rows = body["measurements"]
    said = {
        "device": body["device_name"],
        "SDK": ", ".join(f"{name} {version}" for name, version in body["sdk"].items()),
        "image": f"{image['size']}, resized to {image['resized']}, on the canvas {image['canvas']}",
        "classes": "stand-ins, whose text was not encoded" if body["stand_in_classes"] else "named",
        "graphs": "one after the other" if body["in_order"] else "as in use; they may overlap",
    }
    sweep = _sweep(rows).html() if len(rows) > 1 else None
    first, *rest = (_measurement(row) for row in rows)
    more = [details(_load(row), block) for row, block in zip(rows[1:], rest, strict=True)]
    return join([heading(result), facts(said), sweep, tag("h4", _load(rows[0])), first, *more])


def _load(row: Mapping[str, Any]) -> str:
    batch = f", {row['batch']} images at once (the graphs alone)" if row["batch"] > 1 else ""
    return f"{row['classes']} classes{batch}"


def _sweep(rows: Sequence[Mapping[str, Any]]) -> Table:
    most = max(row["totals"][0]["p50_ms"] for row in rows) or 1.0
    lines = []
    for row in rows:
        total, trusted = row["totals"][0], "yes" if row["trusted"] else "no"
        bar = Cell(milliseconds(total["p50_ms"]).text, total["p50_ms"] / most, number=True)
        lines.append([Cell(_load(row)), bar, milliseconds(total["p95_ms"]), Cell(trusted)])
    return Table(["sweep", "p50 ms", "p95 ms", "trusted"], lines)


def _measurement(row: Mapping[str, Any]) -> Html:
    memory = row["memory"]
    peaks = [f"host at most {size_words(memory['host_peak_bytes'])} since {memory['host_since']}"]
    peaks = peaks if memory["host_peak_bytes"] is not None else []
    peaks += [f"GPU {size_words(memory['device_peak_bytes'])}"] if memory["device_peak_bytes"] is not None else []
    said = {
        "runs": str(row["runs"]),
        "clock": " and ".join(_clocks(row)),
        "memory": "; ".join(peaks),
        **_conditions(row["conditions"]),
    }
    verdict = "trusted" if row["trusted"] else "not to be trusted because " + "; ".join(row["reasons"])
    sign = tag("p", tag("b", "✓ " if row["trusted"] else "⚠ "), verdict, class_="good" if row["trusted"] else "doubt")
    return join([sign, _stages(row).html(), facts(said), remarks(row["notes"])])


def _stages(row: Mapping[str, Any]) -> Table:
    whole = row["totals"][0]["p50_ms"] or 1.0
    columns = ["stage", "p50 ms", "p95", "p99", "mean", "fastest", "what is included"]
    columns += ["clock"] if len(_clocks(row)) > 1 else []
    return Table(columns, [_stage(stage, whole)[: len(columns)] for stage in (*row["totals"], *row["stages"])])


def _clocks(row: Mapping[str, Any]) -> list[str]:
    return sorted({stage["clock"] for stage in (*row["totals"], *row["stages"])})


def _stage(stage: Mapping[str, Any], whole: float) -> list[Cell]:
    middle = Cell(milliseconds(stage["p50_ms"]).text, stage["p50_ms"] / whole, number=True)
    rest = [milliseconds(stage[f"{name}_ms"]) for name in ("p95", "p99", "mean", "min")]
    said = [Cell(stage["included"], quiet=True), Cell(stage["clock"], quiet=True)]
    return [Cell(stage_words(stage), indent=stage_level(stage)), middle, *rest, *said]


def _conditions(found: Mapping[str, Any]) -> dict[str, str]:
    limit = (found["gpu"] or {}).get("power_limit_w")
    said = {
        "power mode": found["power_mode"],
        "governor": " and ".join(found["governors"]),
        "power limit": None if limit is None else f"{limit:g} W",
        "readings": "; ".join(map(_reading, found["readings"])),
    }
    return {name: value for name, value in said.items() if value}


def _reading(found: Mapping[str, Any]) -> str:
    kind, _, _ = found["kind"].rpartition("_")
    unit = _UNITS.get(found["kind"], "")
    values = f"{number(found['least'], 0).text} to {number(found['most'], 0).text}"
    return f"{kind} of {found['of']} {values} {unit}".strip()
