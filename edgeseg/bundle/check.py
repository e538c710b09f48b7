"""What must hold between the parts of a manifest, beyond the types that `edgeseg.schema` checks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from posixpath import dirname
from typing import NamedTuple

from edgeseg.bundle.paths import UNDAMAGED, check_relative
from edgeseg.errors import BundleError
from edgeseg.schema import (
    DTYPES,
    FORMS,
    PRECISIONS,
    EngineSpec,
    Gate,
    GraphSpec,
    Manifest,
    Selection,
    Size,
    size_text,
)

REFERENCE_TEXT = "text"  # the key of the text encoder's reference tensors


class Made(NamedTuple):
    """What one graph and all engines made from it share."""

    graph: str
    precision: str
    canvas: Size | None

    def __str__(self) -> str:
        return f"{self.graph}, {self.precision}, {size_text(self.canvas)}"


def made_of(spec: GraphSpec | EngineSpec) -> Made:
    """The `Made` of a graph or an engine."""
    return Made(spec.name if isinstance(spec, GraphSpec) else spec.graph, spec.precision, spec.canvas)


def graph_key(spec: GraphSpec) -> tuple[Made, str]:
    """What no two graphs of a bundle share; an engine is made from one form, and takes the place of both."""
    return made_of(spec), spec.form


def engine_key(spec: EngineSpec) -> tuple[str, str, Made]:
    """What no two engines of a bundle share."""
    return spec.backend, spec.device, made_of(spec)


def referenced(manifest: Manifest) -> set[str]:
    """Paths that graphs, engines, selections and reference entries name, also of graphs that a pack left out."""
    specs: Iterable[GraphSpec | EngineSpec] = (*manifest.graphs, *manifest.engines)
    named = {path for spec in specs for path in (spec.file, *spec.data)}
    named |= {engine.report for engine in manifest.engines if engine.report}
    named |= {selection.report for selection in manifest.selections}
    return named | {path for paths in manifest.reference.values() for path in paths}


def check_manifest(manifest: Manifest, where: str = "this bundle.json") -> Manifest:
    """The manifest itself, if its parts agree; else a BundleError that names the part."""
    for problem in _problems(manifest):
        raise BundleError(f"use {where}", problem, UNDAMAGED)
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    for path in (*manifest.files, *referenced(manifest)):
        check_relative(path)
    yield from _files(manifest)
    yield from _canvases(manifest)
    yield from _images(manifest)
    for graph in manifest.graphs:
        yield from (f"graph {made_of(graph)}: {problem}" for problem in _graph(graph, manifest))
    for engine in manifest.engines:
        yield from (f"engine {engine.file}: {problem}" for problem in _engine(engine, manifest))
    for selection in manifest.selections:
        place = f"selection {selection.backend} {selection.device}"
        yield from (f"{place}: {problem}" for problem in _selection(selection, manifest))
    yield from _repeated("selection", manifest.selections, lambda selection: (selection.backend, selection.device))
    yield from _repeated("graph", manifest.graphs, lambda graph: f"{made_of(graph)}, {graph.form}")
    yield from _repeated("engine", manifest.engines, engine_key)
    for key, paths in manifest.reference.items():
        if key != REFERENCE_TEXT and key not in map(size_text, manifest.canvases):
            yield f"reference {key}: there is no such canvas"
        yield from (f"reference {key}: files does not list {path}" for path in paths if path not in manifest.files)


def _files(manifest: Manifest) -> Iterator[str]:
    for path, spec in manifest.files.items():
        if spec.bytes < 0 or not re.fullmatch(r"[0-9a-f]{64}", spec.sha256):
            yield f"files {path}: this is no length and sha256"


def _canvases(manifest: Manifest) -> Iterator[str]:
    for canvas in manifest.canvases:
        if min(canvas) < 1:
            yield f"canvas {size_text(canvas)}: a side is not positive"
    yield from _repeated("canvas", manifest.canvases, size_text)


def _images(manifest: Manifest) -> Iterator[str]:
    for name, image in manifest.images.items():
        if min(image.std) <= 0 or not 0 < image.scale <= 8:
            yield f"image {name}: std and scale must be positive, and scale at most 8"


def _graph(graph: GraphSpec, manifest: Manifest) -> Iterator[str]:
    yield from _place(graph, manifest)
    if graph.form not in FORMS:
        yield f"the form is none of {', '.join(FORMS)}"
    for path in graph.data:
        if dirname(path) != dirname(graph.file):
            yield f"its weights {path} are not in the folder of {graph.file}"
    packed = any(made_of(engine) == made_of(graph) for engine in manifest.engines)
    if not (packed and graph.file not in manifest.files):
        yield from _unlisted(graph, manifest)
    if graph.parameters < 0:
        yield "parameters is negative"
    yield from _tensors(graph)


def _engine(engine: EngineSpec, manifest: Manifest) -> Iterator[str]:
    yield from _place(engine, manifest)
    yield from _unlisted(engine, manifest)
    if not any(made_of(graph) == made_of(engine) for graph in manifest.graphs):
        yield f"there is no graph {made_of(engine)}"
    if engine.report is not None and engine.report not in manifest.files:
        yield f"files does not list {engine.report}"
    if any(count < 0 for counts in engine.layers.values() for count in counts.values()):
        yield "layers holds a negative number"
    yield from _gate(engine.gate)


def _selection(selection: Selection, manifest: Manifest) -> Iterator[str]:
    for graph, precision in selection.precisions.items():
        if precision not in PRECISIONS:
            yield f"the precision of {graph} is none of {', '.join(PRECISIONS)}"
    if not set(selection.canvases) <= set(manifest.canvases):
        yield "a canvas is not among canvases"
    if selection.report not in manifest.files:
        yield f"files does not list {selection.report}"
    yield from _gate(selection.gate)


def _gate(gate: Gate | None) -> Iterator[str]:
    if gate and not (math.isfinite(gate.cosine) and (gate.agreement is None or 0 <= gate.agreement <= 1)):
        yield "its gate holds numbers that cannot be"


def _place(spec: GraphSpec | EngineSpec, manifest: Manifest) -> Iterator[str]:
    if spec.precision not in PRECISIONS:
        yield f"the precision is none of {', '.join(PRECISIONS)}"
    if spec.canvas is not None and spec.canvas not in manifest.canvases:
        yield "its canvas is not among canvases"


def _unlisted(spec: GraphSpec | EngineSpec, manifest: Manifest) -> Iterator[str]:
    yield from (f"files does not list {path}" for path in (spec.file, *spec.data) if path not in manifest.files)


def _tensors(graph: GraphSpec) -> Iterator[str]:
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype not in DTYPES:
            yield f"tensor {tensor.name}: the dtype is none of {', '.join(DTYPES)}"
        for extent in tensor.shape:
            if isinstance(extent, int) and extent < 1:
                yield f"tensor {tensor.name}: an axis is not positive"
            if isinstance(extent, str) and extent not in graph.axes:
                yield f"tensor {tensor.name}: axes does not hold {extent}"
    for axis, (low, usual, high) in graph.axes.items():
        if not 1 <= low <= usual <= high:
            yield f"axis {axis}: its extents do not ascend from 1"
    yield from _repeated("input", graph.inputs, lambda tensor: tensor.name)
    yield from _repeated("output", graph.outputs, lambda tensor: tensor.name)


def _repeated(what: str, items: Iterable[object], key: Callable[..., Hashable]) -> Iterator[str]:
    seen: set[Hashable] = set()
    for item in items:
        if key(item) in seen:
            yield f"the {what} {key(item)} is there twice"
        seen.add(key(item))
