"""Graphs of a bundle to engines: one graph at a time, each kept as soon as it is made, all gated at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeseg.bundle import Bundle, BundleEdit
from edgeseg.errors import BuildError
from edgeseg.schema import EngineSpec, GraphSpec, Size, size_text

from .compiler import Compiler, Job, Outcome
from .gate import gate
from .progress import Advance, WorkBar

PREFERRED = {"onnxruntime": ("fp32",)}  # a CPU computes in fp32 and would only convert back and forth
PREFERRED_GPU = ("fp16", "fp32")


@dataclass(frozen=True)
class Request:
    """What to build: None or empty means what suits the machine, and everything that the bundle holds."""

    precision: str | None = None
    canvases: tuple[Size, ...] = ()
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Built:
    """One engine of a build. `kept`: it was there already. `compile_s`, `layers`: of compiling, else 0 and empty."""

    engine: EngineSpec
    size_bytes: int
    kept: bool = False
    compile_s: float = 0.0
    layers: dict[str, Any] = field(default_factory=dict)


def build(path: Path, compiler: Compiler, request: Request, shown: bool = True) -> list[Built]:
    """Make the engines that the request asks for and the bundle lacks.

    Each engine is in the bundle as soon as it is made, so an interrupted build goes on where it stopped. Two builds of
    one bundle take turns, graph by graph, and neither repeats the other's work.

    Raises:
        BuildError: the bundle lacks what was asked for, or the compiler refuses a graph.
        GateError: engines that run on this machine do not give the reference results.
        KeyboardInterrupt: Ctrl-C; engines made before stay.
    """
    _check_limit(compiler, request)
    graphs = wanted(Bundle.open(path), compiler.backend, request)
    weights = {_label(graph): float(max(graph.parameters, 100_000)) for graph in graphs}
    title = f"building for {compiler.device}"
    with WorkBar(title, weights, shown) as bar:
        built = [_build_with_bar(path, compiler, graph, request, bar) for graph in graphs]
    return _gated(path, compiler, built, shown)


def _build_with_bar(path: Path, compiler: Compiler, graph: GraphSpec, request: Request, bar: WorkBar) -> Built:
    with bar.piece(_label(graph)) as advance:
        return _build_one(path, compiler, graph, request, advance)


def _gated(path: Path, compiler: Compiler, built: list[Built], shown: bool) -> list[Built]:
    """The engines with their gates, if they run on this machine and one of them has none yet."""
    if not compiler.runs_here or all(item.engine.gate is not None for item in built):
        return built
    canvases = tuple(dict.fromkeys(item.engine.canvas for item in built if item.engine.canvas is not None))
    precision = built[0].engine.precision
    engines = gate(Bundle.open(path), compiler.backend, precision, canvases, shown)
    by_key = {(engine.graph, engine.canvas): engine for engine in engines}
    return [replace(item, engine=by_key[item.engine.graph, item.engine.canvas]) for item in built]


def wanted(bundle: Bundle, backend: str, request: Request) -> list[GraphSpec]:
    """The graphs to build. Raises BuildError if the bundle lacks the precision or a canvas."""
    precision = request.precision or _default_precision(bundle, backend)
    asked = f"build {bundle.path} in {precision}"
    if precision not in bundle.precisions():
        found = f"the bundle holds graphs in {', '.join(bundle.precisions())}"
        raise BuildError(asked, found, f"run `edgeseg quantize {bundle.path} --precision {precision}` first")
    canvases = bundle.manifest.canvases
    unknown = [size_text(canvas) for canvas in request.canvases if canvas not in canvases]
    if unknown:
        found = f"the bundle has no canvas {', '.join(unknown)}, only {', '.join(map(size_text, canvases))}"
        raise BuildError(asked, found, "export the bundle with --size for it")
    chosen = request.canvases or canvases
    graphs = bundle.manifest.graphs
    mine = [g for g in graphs if g.precision == precision and (g.canvas is None or g.canvas in chosen)]
    for graph in mine:
        if graph.file not in bundle.manifest.files:
            bundle.graph_files(graph)  # says that the graph was left out when the bundle was packed
    return mine


def _default_precision(bundle: Bundle, backend: str) -> str:
    held = bundle.precisions()
    return next((p for p in PREFERRED.get(backend, PREFERRED_GPU) if p in held), held[0])


def _check_limit(compiler: Compiler, request: Request) -> None:
    if compiler.in_place and request.memory_limit_bytes is not None:
        found = f"{compiler.backend} compiles nothing ahead, so there is no memory to limit"
        raise BuildError("build with --memory-limit", found, "leave the option out")


def _label(graph: GraphSpec) -> str:
    return f"{graph.name} {size_text(graph.canvas)}"


def _build_one(path: Path, compiler: Compiler, graph: GraphSpec, request: Request, advance: Advance) -> Built:
    opened = Bundle.open(path)
    with opened.edit() as edit:
        bundle = Bundle(opened.path, edit.manifest)  # as it is now: another build may have been faster
        kept = _existing(bundle, compiler, graph)
        if kept is not None:
            return Built(kept, bundle.manifest.files[kept.file].bytes, kept=True)
        if compiler.in_place:
            return _record_in_place(bundle, compiler, graph, edit)
        return _compile(bundle, compiler, graph, request, edit=edit, advance=advance)


def _existing(bundle: Bundle, compiler: Compiler, graph: GraphSpec) -> EngineSpec | None:
    """The engine that building would make again."""
    fresh = _engine(bundle, compiler, graph, "", ())
    for engine in bundle.manifest.engines:
        same = all(getattr(engine, name) == getattr(fresh, name) for name in _IDENTITY)
        if same and (engine.gate is None or engine.gate.passed):
            return engine
    return None


_IDENTITY = ("backend", "device", "graph", "precision", "canvas", "source_sha256", "versions")


def _engine(bundle: Bundle, compiler: Compiler, graph: GraphSpec, file: str, data: tuple[str, ...]) -> EngineSpec:
    return EngineSpec(
        backend=compiler.backend,
        device=compiler.device,
        graph=graph.name,
        precision=graph.precision,
        canvas=graph.canvas,
        file=file,
        data=data,
        source_sha256=bundle.manifest.files[graph.file].sha256,
        versions=compiler.versions,
    )


def _record_in_place(bundle: Bundle, compiler: Compiler, graph: GraphSpec, edit: BundleEdit) -> Built:
    """The graph itself as the engine, or what the SDK derives from it, beside it: the two share the weights."""
    derived = compiler.derive(bundle.graph_files(graph), graph)
    if derived is None:
        engine = _engine(bundle, compiler, graph, graph.file, graph.data)
        edit.add_engine(engine)
        return Built(engine, bundle.manifest.files[graph.file].bytes)
    engine = _engine(bundle, compiler, graph, f"{graph.file.removesuffix('.onnx')}.cpu.onnx", graph.data)
    edit.stage(engine.file).write_bytes(derived)
    edit.add_engine(engine)
    return Built(engine, len(derived))


def _compile(
    bundle: Bundle, compiler: Compiler, graph: GraphSpec, request: Request, *, edit: BundleEdit, advance: Advance
) -> Built:
    folder = f"engines/{compiler.backend}-{compiler.device}"
    engine = _engine(
        bundle, compiler, graph, f"{folder}/{graph.precision}/{graph.name}-{size_text(graph.canvas)}.engine", ()
    )
    target = edit.stage(engine.file)
    source = bundle.graph_files(compiler.source(bundle.manifest.graphs, graph))
    cache = f"{folder}/timing.cache"
    earlier = bundle.file(cache).read_bytes() if cache in bundle.manifest.files else b""
    started = time.monotonic()
    outcome = compiler.compile(Job(source, graph, target, request.memory_limit_bytes, earlier), advance)
    seconds = time.monotonic() - started
    _keep_cache(outcome, earlier, cache, edit.stage)
    edit.add_engine(engine)
    return Built(engine, target.stat().st_size, compile_s=round(seconds, 3), layers=outcome.layers)


def _keep_cache(outcome: Outcome, earlier: bytes, cache: str, stage: Callable[[str], Path]) -> None:
    if outcome.timing_cache and outcome.timing_cache != earlier:
        stage(cache).write_bytes(outcome.timing_cache)
