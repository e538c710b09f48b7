"""One engine of a bundle: found there, shared with another precision, or made; its precisions checked and recorded."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from edgeseg.bundle import Bundle, BundleEdit
from edgeseg.schema import EngineSpec, GraphSpec, Size, size_text

from . import obtained
from .compiler import Compiler, Job, Outcome
from .layers import Layer, summary
from .progress import Advance
from .request import Request


@dataclass(frozen=True)
class Built:
    """One engine of a build.

    Attributes:
        kept: it was there already. `shared`: it is the file of another precision, whose graph is the same.
        compile_s, layers: of compiling, else 0 and empty.
        differences: in which precisions it is not what its graph asks for, one sentence each.
    """

    engine: EngineSpec
    size_bytes: int
    kept: bool = False
    shared: bool = False
    compile_s: float = 0.0
    layers: dict[str, Any] = field(default_factory=dict)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A graph to compile in place of the bundle's own, which stays.

    Attributes:
        rewrite: changes the bundle's graph, whose weights are not loaded, and returns how many nodes it changed; new
            weights must be inline.
        report: path in the bundle of the report that says why. `text`: what it says so far.
    """

    rewrite: Callable[[onnx.ModelProto], int]
    report: str
    text: str


class Unchanged(Exception):  # noqa: N818  # a signal, not an error
    """There was nothing to change, so nothing was made."""


def make_engine(
    path: Path,
    compiler: Compiler,
    graph: GraphSpec,
    request: Request,
    *,
    advance: Advance,
    change: Change | None = None,
) -> Built:
    """Make the engine of a graph, unless it is there; it is in the bundle when this returns, without a gate.

    Raises:
        BuildError: the compiler refuses the graph, or makes something else of it than it asks for; nothing is kept.
        Unchanged: the change found nothing to change.
    """
    opened = Bundle.open(path)
    with opened.edit() as edit:
        bundle = Bundle(opened.path, edit.manifest)  # as it is now: another build may have been faster
        kept = _existing(bundle, compiler, graph) if change is None else None
        if kept is not None:
            return Built(kept, bundle.manifest.files[kept.file].bytes, kept=True)
        twin = _twin(bundle, compiler, graph) if change is None else None
        if twin is not None:
            edit.add_engine(twin)
            return Built(twin, bundle.manifest.files[twin.file].bytes, shared=True)
        return _Making(bundle, compiler, graph, edit).make(request, advance, change)


_IDENTITY = ("backend", "device", "graph", "canvas", "source_sha256", "versions")


def _existing(bundle: Bundle, compiler: Compiler, graph: GraphSpec) -> EngineSpec | None:
    """The engine that building would make again; an engine of a repair that was interrupted is none."""
    for engine in _equals(bundle, compiler, graph):
        passed = engine.gate.passed if engine.gate else engine.report is None
        if engine.precision == graph.precision and passed:
            return engine
    return None


def _twin(bundle: Bundle, compiler: Compiler, graph: GraphSpec) -> EngineSpec | None:
    """The engine of another precision whose graph is the same, as one of this precision."""
    if compiler.in_place or not compiler.typed:
        return None
    for engine in _equals(bundle, compiler, graph):
        if engine.report is None and (engine.gate is None or engine.gate.passed):
            return replace(engine, precision=graph.precision, gate=None)
    return None


def _equals(bundle: Bundle, compiler: Compiler, graph: GraphSpec) -> list[EngineSpec]:
    fresh = engine_of(bundle, compiler, graph)
    return [e for e in bundle.manifest.engines if all(getattr(e, name) == getattr(fresh, name) for name in _IDENTITY)]


def engine_of(bundle: Bundle, compiler: Compiler, graph: GraphSpec) -> EngineSpec:
    """The entry of a graph's engine as it is before anything was made: its file is the graph's."""
    return EngineSpec(
        backend=compiler.backend,
        device=compiler.device,
        graph=graph.name,
        precision=graph.precision,
        canvas=graph.canvas,
        file=graph.file,
        data=graph.data,
        source_sha256=bundle.manifest.files[graph.file].sha256,
        versions=compiler.versions,
    )


@dataclass(frozen=True)
class _Making:
    """The making of one engine, inside an edit of the bundle."""

    bundle: Bundle
    compiler: Compiler
    graph: GraphSpec
    edit: BundleEdit

    def make(self, request: Request, advance: Advance, change: Change | None) -> Built:
        compiler, folder = self.compiler, f"engines/{self.compiler.backend}-{self.compiler.device}"
        cache = f"{folder}/timing.cache"
        earlier = self.bundle.file(cache).read_bytes() if cache in self.bundle.manifest.files else b""
        engine = engine_of(self.bundle, compiler, self.graph)
        if not compiler.in_place:
            # Other precisions may share the engine, but never its repair.
            name = f"{self.graph.name}-{size_text(self.graph.canvas)}" + "-repair" * (change is not None)
            engine = replace(engine, file=f"{folder}/{self.graph.precision}/{name}.engine", data=())
        source = self._source(change)
        target = self.edit.scratch() / "unused" if compiler.in_place else self.edit.stage(engine.file)
        limit, scratch = request.memory_limit_bytes, self.edit.scratch()
        job = Job(source, self.graph, target, scratch, limit, earlier, changed=change is not None)
        started = time.monotonic()
        outcome = compiler.compile(job, advance)
        seconds = 0.0 if compiler.in_place else round(time.monotonic() - started, 3)
        engine = self._keep(outcome, engine, change, cache if outcome.timing_cache != earlier else None)
        engine, differences = self._obtained(engine, source, outcome.layers, request.tolerant or change is not None)
        self.edit.add_engine(engine)
        told = {} if compiler.in_place else summary(outcome.layers)
        return Built(engine, self._size(engine), compile_s=seconds, layers=told, differences=tuple(differences))

    def _source(self, change: Change | None) -> Path:
        """The ONNX file to compile; a changed one in a folder of its own, beside its weights."""
        graph = self.compiler.source(self.bundle.manifest.graphs, self.graph)
        source = self.bundle.graph_files(graph)
        if change is None:
            return source
        model = onnx.load(source, load_external_data=False)
        if not change.rewrite(model):
            raise Unchanged
        return placed(model, [self.bundle.file(path) for path in graph.data], self.edit.scratch())

    def _keep(self, outcome: Outcome, engine: EngineSpec, change: Change | None, cache: str | None) -> EngineSpec:
        """Stage what the compiler made beside its target."""
        if outcome.model is not None:
            # Other precisions may share the graph and then the cpu form of it, but never its repair.
            kind = "cpu" if change is None else f"{self.graph.precision}-repair"
            engine = replace(engine, file=f"{self.graph.file.removesuffix('.onnx')}.{kind}.onnx")
            self.edit.stage(engine.file).write_bytes(outcome.model)
        if cache is not None and outcome.timing_cache:
            self.edit.stage(cache).write_bytes(outcome.timing_cache)
        if change is not None:
            self.edit.stage(change.report).write_text(change.text, "utf-8")
            engine = replace(engine, report=change.report)
        return engine

    def _obtained(
        self, engine: EngineSpec, source: Path, layers: list[Layer], tolerant: bool
    ) -> tuple[EngineSpec, list[str]]:
        """The engine with the precisions it got, and in which it is not what its graph asks for."""
        if not layers:
            return engine, []
        wanted = obtained.products(onnx.load(source, load_external_data=False))
        got = obtained.obtained(wanted, layers)
        engine = replace(engine, layers=obtained.counts(wanted, got, layers))
        if self.compiler.typed:
            differences = obtained.differences(wanted, got)
        else:
            differences = obtained.refused(engine.layers, self.graph.precision)
        if not tolerant:
            obtained.refuse(self.graph, differences)
        return engine, differences

    def _size(self, engine: EngineSpec) -> int:
        staged = self.edit.current(engine.file)
        return staged.stat().st_size


def placed(model: onnx.ModelProto, weights: list[Path], folder: Path) -> Path:
    """Write a model whose external weights are files elsewhere, and put those beside it. Returns the ONNX file.

    Hard links, because onnxruntime follows no symbolic ones; a copy where the disk has none.
    """
    for file in weights:
        beside = folder / file.name
        beside.unlink(missing_ok=True)
        try:
            os.link(file, beside)
        except OSError:
            shutil.copyfile(file, beside)
    target = folder / "changed.onnx"
    target.write_bytes(model.SerializeToString())
    return target


def canvases_of(built: list[Built]) -> tuple[Size, ...]:
    """The canvases that engines were built for."""
    return tuple(dict.fromkeys(item.engine.canvas for item in built if item.engine.canvas is not None))
