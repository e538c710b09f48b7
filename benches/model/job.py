"""Counts a bundle's graphs and, unless only that is asked for, measures them against this machine's roofline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.backends.base import Array
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, InputError
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import GraphSpec, Size, size_text
from edgeseg.selection import RUN_GRAPHS, Plan

from ..latency.classes import stand_in
from ..latency.effort import Effort, Report
from ..latency.graphs import graph_runs
from ..latency.job import reference_file
from ..latency.measure import Measurement, measure
from ..latency.statistics import median
from ..latency.subject import InOrder, Subject
from .cost import GraphCost, count
from .probe import device_roofline
from .roofline import Roofline, host_roofline

TEXT = "text"
Bar = Callable[[str], AbstractContextManager[Report]]

_CORES_APART = 0.25


@dataclass(frozen=True)
class Job:
    """What to count and measure.

    Attributes:
        canvas: (H, W); None takes the first.
        classes: extent of the axis C.
        image: goes through the graphs; None takes the bundle's reference image.
        effort: see `Effort`.
    """

    canvas: Size | None = None
    classes: int = 150
    image: Path | None = None
    effort: Effort = field(default_factory=Effort)


def count_bundle(bundle: Bundle, precision: str, job: Job) -> dict[str, Any]:
    """Count every graph of one precision and canvas.

    Raises:
        BundleError: a graph file is not in the bundle, or no ONNX.
    """
    canvas = job.canvas or bundle.manifest.canvases[0]
    chain = [bundle.graph(name, precision, canvas) for name in get_pipeline(bundle.manifest).graphs]
    return _counted(bundle, [(spec, spec.file) for spec in _with_text(bundle, chain)], canvas, job.classes)


def count_plan(bundle: Bundle, plan: Plan, graphs: Sequence[GraphSpec], job: Job) -> dict[str, Any]:
    """The same of the graphs that a plan runs; an engine that is ONNX itself is counted in its graph's place."""
    engines = plan.engines if plan.backend.name in RUN_GRAPHS else {}
    files = []
    for spec in _with_text(bundle, graphs):
        engine = engines.get((spec.name, spec.canvas))
        files.append((spec, spec.file if engine is None else engine.file))
    return _counted(bundle, files, job.canvas or plan.canvases[0], job.classes)


def _counted(bundle: Bundle, files: Sequence[tuple[GraphSpec, str]], canvas: Size, classes: int) -> dict[str, Any]:
    captions = _captions(bundle, [spec for spec, _ in files if spec.name != TEXT], classes)
    rows = [_row(bundle, spec, file, _extents(spec, classes) | captions.get(spec.name, {})) for spec, file in files]
    notes = [
        f"{row['graph']}: operators of unknown cost ({', '.join(row['uncounted'])}), so its MACs are a lower bound"
        for row in rows
        if row["uncounted"]
    ]
    return {"canvas": size_text(canvas), "classes": classes, "graphs": rows, "notes": notes}


def measure_bundle(subject: Subject, job: Job, bar: Bar) -> dict[str, Any]:
    """The same with latencies and the roofline, both measured now. The subject's graphs run in order."""
    plan, bundle = subject.plan, subject.segmenter.bundle
    job = _on_canvas(job, plan)
    body = count_plan(bundle, plan, subject.graphs(job.canvas or plan.canvases[0]), job)
    with tempfile.TemporaryDirectory(prefix="edgeseg-") as folder:
        image = job.image or reference_file(subject, job.canvas, Path(folder))
        vocabulary = stand_in(bundle, job.classes)
        with graph_runs(subject.segmenter, image, vocabulary, job.canvas) as runs, bar("graphs") as report:
            found = measure(runs.once, job.effort, subject.place, report)
    with bar("roofline"):
        roofline = _roofline(subject)
    for row in body["graphs"]:
        row |= _against(row, found, roofline)
    said = found.describe()
    notes = [*body["notes"], *_doubts(roofline, found), *said.pop("notes")]
    return {**body, "roofline": asdict(roofline), **said, "notes": notes}


def _on_canvas(job: Job, plan: Plan) -> Job:
    """The canvas must be one that runs: a graph of another one would be counted and never measured."""
    canvas = job.canvas or plan.canvases[0]
    if canvas not in plan.canvases:
        sizes = ", ".join(map(size_text, plan.canvases))
        raise InputError(f"use the canvas {size_text(canvas)}", f"there is none among {sizes}", "take one of these")
    return Job(canvas, job.classes, job.image, job.effort)


def _with_text(bundle: Bundle, chain: Sequence[GraphSpec]) -> list[GraphSpec]:
    """The chain and the text encoder, of the chain's precision if there is one."""
    text = [graph for graph in bundle.manifest.graphs if graph.name == TEXT]
    return [*chain, *([graph for graph in text if graph.precision == chain[0].precision] or text)[:1]]


def _row(bundle: Bundle, spec: GraphSpec, file: str, extents: dict[str, int]) -> dict[str, Any]:
    path = _present(bundle, file)
    try:
        cost = count(path, extents)
    except Exception as error:  # protobuf and onnx raise classes of their own
        raise BundleError(f"count {file}", f"onnx says: {error}", "check it with `edgeseg verify`") from error
    named = {"graph": spec.name, "precision": spec.precision, "file": file}
    return {**named, **_numbers(cost), "uncounted": cost.uncounted}


def _present(bundle: Bundle, file: str) -> Path:
    if file not in bundle.manifest.files:
        raise BundleError("count the graphs", f"{file} was left out when the bundle was packed", "use the whole bundle")
    return bundle.file(file)


def _extents(spec: GraphSpec, classes: int) -> dict[str, int]:
    """Of the dynamic axes: so many classes, one prompt, as many tokens as there may be, else the usual extent."""
    chosen = {"C": classes, "N": 1} | {name: limits[2] for name, limits in spec.axes.items() if name == "T"}
    if "S" in spec.axes:  # classes that are left to LMSeg's aggregation
        chosen["S"] = min(classes, spec.axes["S"][2])
    return {name: usual for name, (_, usual, _) in spec.axes.items()} | chosen


def _captions(bundle: Bundle, graphs: Sequence[GraphSpec], classes: int) -> dict[str, dict[str, int]]:
    """Graph → extents of its axes in the captions of so many classes, where the chain reads tokens; else nothing."""
    if not any("T" in spec.axes for spec in graphs):
        return {}
    feed = get_pipeline(bundle.manifest).class_feed(stand_in(bundle, classes))
    return {spec.name: _fed(spec, feed) for spec in graphs}


def _fed(spec: GraphSpec, feed: Mapping[str, Array]) -> dict[str, int]:
    read = [tensor for tensor in spec.inputs if tensor.name in feed]
    pairs = [pair for tensor in read for pair in zip(tensor.shape, feed[tensor.name].shape, strict=True)]
    return {axis: extent for axis, extent in pairs if isinstance(axis, str)}


def _numbers(cost: GraphCost) -> dict[str, Any]:
    return {
        "parameters": cost.parameters,
        "weights_bytes": cost.weights_bytes,
        "macs": {**cost.macs, "total": cost.total_macs},
        "element_operations": cost.element_operations,
        "least_bytes": cost.least_bytes,
        "flop_per_byte": round(cost.intensity, 2),
        "operators": [asdict(operator) for operator in cost.operators],
    }


def _roofline(subject: Subject) -> Roofline:
    if not subject.place.on_gpu:
        return host_roofline()
    backend = subject.plan.backend
    dtype = "float32" if subject.plan.all_precisions() == ("fp32",) else "float16"
    return device_roofline(backend.inner if isinstance(backend, InOrder) else backend, subject.plan.device, dtype)


def _against(row: dict[str, Any], found: Measurement, roofline: Roofline) -> dict[str, Any]:
    """A graph's latency and share of the roofline; nothing for the text encoder, which no image runs through."""
    samples_ms = found.samples_ms.get(row["graph"])
    if not samples_ms:
        return {"latency_ms": None, "least_ms": None, "roofline_percent": None, "bound": None}
    work = row["macs"]["total"], row["least_bytes"]
    latency_ms, least_ms = median(samples_ms), roofline.least_ms(*work)
    return {
        "latency_ms": round(latency_ms, 4),
        "least_ms": round(least_ms, 4),
        "roofline_percent": round(100 * least_ms / latency_ms, 2),
        "bound": roofline.bound(*work),
    }


def _doubts(roofline: Roofline, found: Measurement) -> Iterator[str]:
    """Why shares of the roofline may be off."""
    own = found.conditions.cpu.own
    if roofline.cores is not None and abs(roofline.cores - own) > _CORES_APART * max(roofline.cores, own):
        yield f"the product kept {roofline.cores:.1f} CPUs busy, the graphs {own:.1f}: shares of the roofline are off"
