"""Engines against the bundle's reference tensors, on the device that will run them; the bundle keeps the result."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from edgeseg.backends.keys import matches
from edgeseg.bundle import Bundle
from edgeseg.chains import Chains
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report, check_chains, check_text, limits
from edgeseg.schema import EngineSpec, Size, size_text
from edgeseg.selection import Plan, Request, choose

from .progress import WorkBar

TEXT = "text"  # the one graph that is outside the chain; its reference tensors have this name too


def gate(
    bundle: Bundle, backend: str, precision: str, canvases: tuple[Size, ...], shown: bool = True
) -> list[EngineSpec]:
    """Run the engines of these canvases, and record in the bundle what each made of it.

    Returns:
        the engines, with their gates.

    Raises:
        GateError: one is too far from the reference; it names the first such graph. What was found is recorded, and
            such an engine is never used.
        BundleError: the bundle holds no reference tensors.
    """
    pipeline = get_pipeline(bundle.manifest)
    plan = choose(bundle, pipeline.graphs, Request(backend, precision))
    text = [g for g in bundle.manifest.graphs if g.name == TEXT and g.precision == precision]
    labels = [*map(size_text, canvases), *(TEXT for _ in text)]
    with WorkBar("checking", dict.fromkeys(labels, 1.0), shown) as bar:
        reports = _chain_reports(bundle, plan, precision, canvases, bar=bar)
        for graph in text:
            with bar.piece(TEXT):
                session = plan.open_text(bundle, graph, bundle.graph_files(graph))
                reports.append(check_text(bundle, graph, session))
    report = reduce(_merged, reports, Report(limits(bundle, precision), (), ()))
    engines = _record(bundle, plan, report, canvases)
    report.require(f"use the {backend} engines of {bundle.path} in {precision}", _todo(bundle, precision))
    return engines


def _chain_reports(
    bundle: Bundle, plan: Plan, precision: str, canvases: tuple[Size, ...], *, bar: WorkBar
) -> list[Report]:
    pipeline = get_pipeline(bundle.manifest)
    chains, reports = Chains(bundle, plan, pipeline.graphs), []
    try:
        for canvas in canvases:
            with bar.piece(size_text(canvas)):
                reports.append(check_chains(bundle, pipeline, chains.chain, [canvas], precision))
    finally:
        chains.close()
    return reports


def _merged(a: Report, b: Report) -> Report:
    return Report(a.limits, a.tensors + b.tensors, a.labels + b.labels)


def _record(bundle: Bundle, plan: Plan, report: Report, canvases: tuple[Size, ...]) -> list[EngineSpec]:
    gated: list[EngineSpec] = []
    with bundle.edit() as edit:
        for engine in edit.manifest.engines:
            if _ran(engine, plan, canvases):
                gated.append(replace(engine, gate=report.gate(engine.graph, engine.canvas)))
                edit.add_engine(gated[-1])
    return gated


def _ran(engine: EngineSpec, plan: Plan, canvases: tuple[Size, ...]) -> bool:
    mine = (engine.backend, engine.precision) == (plan.backend.name, plan.precision)
    return mine and matches(engine.device, plan.device_key) and (engine.canvas is None or engine.canvas in canvases)


def _todo(bundle: Bundle, precision: str) -> str:
    if precision != "fp32" and "fp32" in bundle.precisions():
        return "build with --precision fp32"
    return "run `edgeseg verify`, and report its output"
