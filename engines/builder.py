"""Graphs of a bundle to engines: one graph at a time, each kept as soon as it is made, all gated at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.schema import EngineSpec

from .compiler import Compiler
from .gate import check, gate, record
from .making import Built, canvases_of, make_engine
from .progress import WorkBar
from .repair import repair
from .request import Request, check_limit, label, wanted


def build(path: Path, compiler: Compiler, request: Request, shown: bool = True) -> list[Built]:
    """Make the engines that the request asks for and the bundle lacks, and gate them where they can run.

    Each engine is in the bundle as soon as it is made, so an interrupted build goes on where it stopped. Two builds of
    one bundle take turns, graph by graph, and neither repeats the other's work.

    Raises:
        BuildError: the bundle lacks what was asked for, or the compiler refuses a graph, or makes something else of it
            than it asks for; or a repair is asked for of engines that do not run here.
        GateError: engines that run on this machine do not give the reference results; they are removed.
        KeyboardInterrupt: Ctrl-C; engines made before stay, without a gate.
    """
    if request.repair and not compiler.runs_here:
        found = f"engines for {compiler.device} do not run on this machine, so nothing tells which are wrong"
        raise BuildError("build with --repair", found, "leave the option out, or build on the device")
    built = make_engines(path, compiler, request, shown)
    if not compiler.runs_here or all(item.engine.gate is not None for item in built):
        return built
    precision, canvases = built[0].engine.precision, canvases_of(built)
    if request.repair:
        plan, report = check(Bundle.open(path), compiler.backend, precision, canvases, shown)
        if report.failures:
            return repair(path, compiler, request, built, report=report, shown=shown)
        engines = record(Bundle.open(path), plan, report, canvases)
    else:
        engines = gate(Bundle.open(path), compiler.backend, precision, canvases, shown)
    return with_gates(built, engines)


def make_engines(path: Path, compiler: Compiler, request: Request, shown: bool = True) -> list[Built]:
    """The engines, not yet gated."""
    check_limit(compiler, request)
    graphs = wanted(Bundle.open(path), compiler, request)
    weights = {label(graph): float(max(graph.parameters, 100_000)) for graph in graphs}
    built = []
    with WorkBar(f"building for {compiler.device}", weights, shown) as bar:
        for graph in graphs:
            with bar.piece(label(graph)) as advance:
                built.append(make_engine(path, compiler, graph, request, advance=advance))
    return built


def with_gates(built: list[Built], engines: list[EngineSpec]) -> list[Built]:
    """The same with the engines as the gate left them."""
    by_key = {(engine.graph, engine.canvas): engine for engine in engines}
    return [replace(item, engine=by_key[item.engine.graph, item.engine.canvas]) for item in built]
