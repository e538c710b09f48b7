"""Engines against the bundle's reference tensors, on the device that will run them; the bundle keeps the result.

A gate keeps all or nothing. If every limit holds, each engine gets what the gate found of it. If one does not, the
engines that were checked are removed, files and all; of those to blame an entry stays that says so. It names the graph
in place of an engine, so that onnxruntime, which needs no engine, does not run that graph either.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import reduce

from edgeseg.bundle import Bundle, BundleEdit
from edgeseg.bundle.check import engine_key, made_of
from edgeseg.chains import Chains
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report, check_chains, check_text, limits
from edgeseg.schema import EngineSpec, Gate, GraphSpec, Manifest, Selection, Size, size_text
from edgeseg.selection import Plan, Request, choose

from .progress import WorkBar

TEXT = "text"  # the one graph that is outside the chain; its reference tensors have this name too


def gate(
    bundle: Bundle, backend: str, precision: str, canvases: tuple[Size, ...], shown: bool = True
) -> list[EngineSpec]:
    """Run the engines of these canvases, and record in the bundle what each made of it, or that they failed.

    Returns:
        the engines, with their gates.

    Raises:
        GateError: one is too far from the reference; it names the graph and the first such tensor.
        BundleError: the bundle holds no reference tensors, or one with a NaN.
    """
    plan, report = check(bundle, backend, precision, canvases, shown)
    if report.failures:
        discard(bundle, plan, report, canvases)
    report.require(f"use the {backend} engines of {bundle.path} in {precision}", _todo(bundle, precision))
    return record(bundle, plan, report, canvases)


def check(
    bundle: Bundle, backend: str, precision: str, canvases: tuple[Size, ...], shown: bool = True
) -> tuple[Plan, Report]:
    """What ran, and how far it is from the reference; nothing is recorded."""
    plan = choose(bundle, get_pipeline(bundle.manifest).graphs, Request(backend, precision))
    return plan, check_plan(bundle, plan, canvases, shown)


def check_plan(bundle: Bundle, plan: Plan, canvases: tuple[Size, ...], shown: bool = True) -> Report:
    """How far the chains of a plan, and its text encoder, are from the reference."""
    text = _text(bundle, plan)
    labels = [*map(size_text, canvases), *(TEXT for _ in text)]
    with WorkBar("checking", dict.fromkeys(labels, 1.0), shown) as bar:
        reports = _chain_reports(bundle, plan, canvases, bar)
        for graph in text:
            with bar.piece(TEXT):
                reports.append(check_text(bundle, graph, plan.open_text(bundle, graph)))
    return reduce(_merged, reports, Report(limits(bundle, *plan.all_precisions()), (), ()))


def _chain_reports(bundle: Bundle, plan: Plan, canvases: tuple[Size, ...], bar: WorkBar) -> list[Report]:
    pipeline = get_pipeline(bundle.manifest)
    chains, reports = Chains(bundle, plan, pipeline.graphs), []
    try:
        for canvas in canvases:
            with bar.piece(size_text(canvas)):
                reports.append(check_chains(bundle, pipeline, chains.chain, [canvas], *plan.all_precisions()))
    finally:
        chains.close()
    return reports


def _merged(a: Report, b: Report) -> Report:
    return Report(a.limits, a.tensors + b.tensors, a.labels + b.labels)


def record(bundle: Bundle, plan: Plan, report: Report, canvases: tuple[Size, ...]) -> list[EngineSpec]:
    """Give each engine what the gate found of it, and return them."""
    ran = _ran(bundle, plan, canvases)
    with bundle.edit() as edit:
        gated = [_gated(engine, report) for engine in edit.manifest.engines if engine_key(engine) in ran]
        for engine in gated:
            edit.add_engine(engine)
    return gated


def discard(bundle: Bundle, plan: Plan, report: Report, canvases: tuple[Size, ...]) -> None:
    """Remove the engines that ran, but those that a selection holds, and record which are to blame."""
    ran = _ran(bundle, plan, canvases)
    with bundle.edit() as edit:
        before = edit.manifest
        gated = [_gated(engine, report) for engine in before.engines if engine_key(engine) in ran]
        for engine in gated:
            if is_selected(before, engine):
                edit.add_engine(engine)
            else:
                remove(edit, engine)


def remove(edit: BundleEdit, engine: EngineSpec) -> None:
    """Drop an engine; if it failed its gate, the graph takes its place in an entry that says so."""
    edit.remove_engines(lambda other: made_of(other) == made_of(engine) and _place(other) == _place(engine))
    files = edit.manifest.files
    graphs = [graph for graph in edit.manifest.graphs if made_of(graph) == made_of(engine) and graph.file in files]
    source = next((g for g in graphs if files[g.file].sha256 == engine.source_sha256), None)
    if source is not None and engine.gate is not None and not engine.gate.passed:
        edit.add_engine(replace(engine, file=source.file, data=source.data, layers={}, report=None))


def is_selected(manifest: Manifest, engine: EngineSpec) -> bool:
    """Whether a selection of `--precision auto` runs this very engine."""
    mine = (selection for selection in manifest.selections if _place(selection) == _place(engine))
    digest = manifest.files[engine.file].sha256
    return any(
        selection.engines.get(engine.file) == digest and selection.precisions.get(engine.graph) == engine.precision
        for selection in mine
    )


def _place(spec: EngineSpec | Selection) -> tuple[str, str]:
    return spec.backend, spec.device


def words(gate: Gate) -> str:
    """What a gate found, in words."""
    labels = f", labels {gate.agreement:.2%} equal" if gate.agreement is not None else ""
    return f"cosine {gate.cosine:.6f}{labels}"


def _gated(engine: EngineSpec, report: Report) -> EngineSpec:
    return replace(engine, gate=report.gate(engine.graph, engine.canvas))


def _ran(bundle: Bundle, plan: Plan, canvases: tuple[Size, ...]) -> set[Hashable]:
    """Keys of the engines that ran; others may fit the device too, which were made for several."""
    texts = (plan.text_engine(bundle, graph) for graph in _text(bundle, plan))
    chain = (engine for engine in plan.engines.values() if engine.canvas is None or engine.canvas in canvases)
    return {engine_key(engine) for engine in (*chain, *texts) if engine is not None}


def _text(bundle: Bundle, plan: Plan) -> list[GraphSpec]:
    """The text encoder, if the bundle has it in the plan's precision."""
    return [g for g in bundle.manifest.graphs if g.name == TEXT and g.precision == plan.precision_of(TEXT)][:1]


def _todo(bundle: Bundle, precision: str) -> str:
    if precision != "fp32" and "fp32" in bundle.precisions():
        return "build with --repair, with --precision auto, or with --precision fp32"
    return "run `edgeseg verify`, and report its output"
