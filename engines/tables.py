"""What `edgeseg build` prints: engines with their gate and the precisions they got, repairs, and what auto chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from edgeseg.bundle import Bundle
from edgeseg.bundle.read import parse_json
from edgeseg.bundle.summary import layers_text
from edgeseg.cli import printable
from edgeseg.errors import BundleError
from edgeseg.schema import EngineSpec, size_text

from .auto import Auto
from .making import Built
from .picking import Row

_TRIED = ("graph", "canvas", "change", "outcome", "found")


def engines_table(built: list[Built]) -> Table:
    """One row per engine."""
    table = Table("graph", "canvas", "precision", "gate", "engine", "obtained", box=None)
    for item in built:
        engine = item.engine
        obtained = layers_text(engine.layers)
        table.add_row(engine.graph, size_text(engine.canvas), engine.precision, _gate(engine), _made(item), obtained)
    return table


def _gate(engine: EngineSpec) -> str:
    if engine.gate is None:
        return "ungated"
    return f"{'' if engine.gate.passed else 'failed, '}cosine {engine.gate.cosine:.6f}"


def _made(item: Built) -> str:
    """Where an engine came from, and the report that says more."""
    file = item.engine.file
    if item.kept:
        words = "was up to date"
    elif item.shared:
        words = "shared with another precision"
    elif item.compile_s:
        words = f"{item.size_bytes / 2**20:.1f} MiB in {item.compile_s:.1f} s"
    elif file.endswith("-repair.onnx"):
        words = "its repair"
    else:
        words = "its cpu form" if file.endswith(".cpu.onnx") else "the graph itself"
    fused = item.layers.get("fused_attentions", 0)
    words += f", {fused} fused attentions" if fused else ""
    return words + (f", see {item.engine.report}" if item.engine.report else "")


def reports(path: Path, built: list[Built]) -> list[dict[str, Any]]:
    """The reports that engines of a build refer to, as JSON. Raises BundleError for a file that is none."""
    bundle = Bundle.open(path)
    files = dict.fromkeys(item.engine.report for item in built if item.engine.report)
    return [_report(bundle.file(file), file) for file in files if file is not None]


def _report(path: Path, file: str) -> dict[str, Any]:
    """Engines that were kept may have come with a bundle of anyone's."""
    try:
        body = parse_json(path.read_bytes())
    except ValueError as error:
        raise _no_report(file, f"it is no valid JSON ({error})") from None
    if not isinstance(body, dict) or body.get("kind") not in ("repair", "auto"):
        raise _no_report(file, "it is not what a build writes")
    tried = body.get("tried") if body["kind"] == "repair" else []
    if not isinstance(tried, list) or not all(isinstance(one, dict) and one.keys() >= set(_TRIED) for one in tried):
        raise _no_report(file, "it does not list what was tried")
    return dict(body)


def _no_report(file: str, found: str) -> BundleError:
    return BundleError(f"read the report {file}", found, "build the engines that name it again")


def repair_table(report: dict[str, Any]) -> Table:
    """Every rung that was tried."""
    table = Table("graph", "canvas", "repair tried", "outcome", "found", box=None)
    for one in report["tried"]:
        table.add_row(*(printable(str(one[key])) for key in _TRIED))
    return table


def chains_table(auto: Auto) -> Table:
    """Each precision as a whole."""
    table = Table("whole chain in", "gate", "", box=None)
    for chain in auto.chains:
        table.add_row(chain.precision, "passed" if chain.passes else "failed", printable(chain.found))
    return table


def auto_table(auto: Auto) -> Table:
    """Each graph in each precision: time, speed against the one that was taken, and why."""
    table = Table("graph", "precision", "median ms", "speed", "cosine", "why", box=None)
    for row in auto.rows:
        table.add_row(*_cells(row), style="bold" if row.chosen else None)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    one = row.candidate
    median = "" if row.median_ms is None else f"{row.median_ms:.2f}"
    why = "; ".join([row.reason, *one.differences])
    closeness = "" if one.same_as else f"{one.closeness:.6f}"
    return one.graph, one.precision, median, str(row.against or ""), closeness, printable(why)
