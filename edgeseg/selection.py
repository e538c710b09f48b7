"""Chooses what runs a bundle on this machine: backend, precision, and an engine (or the graph itself) for every graph.

An engine is usable if it was built for this device, from the graph file that the bundle holds now, and did not fail its
gate. onnxruntime needs no engine: it runs the graph file, unless there is an engine that was made for it.

What `edgeseg build --precision auto` measured to be best on a device is taken there before any other precision, as long
as the very engines that it measured are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.backends import BACKENDS, get_backend
from edgeseg.backends.base import Backend, Probe, Session
from edgeseg.backends.keys import matches
from edgeseg.bundle.check import made_of
from edgeseg.errors import BackendError, BundleError
from edgeseg.schema import EngineSpec, GraphSpec, Selection, Size

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

AUTO = "auto"
"""In the place of a precision: the one of each graph that was measured to be best."""

RUN_GRAPHS = ("onnxruntime", "fake")
"""Backends that open a graph file as it is."""

# Fastest first, among those whose results stay closest to fp32; int8 and fp8 are taken only where nothing else was
# built.
_GPU_PRECISIONS = ("fp16", "mixed", "fp32", "int8", "fp8")
_CPU_PRECISIONS = ("fp32", "mixed", "int8", "fp16", "fp8")


@dataclass(frozen=True)
class Request:
    """What the user asked for; None leaves the choice.

    Attributes:
        backend: a key of `BACKENDS`, or a backend object (a `FakeBackend` with outputs).
        precision: one of `PRECISIONS`, or `AUTO`.
        device: index of the GPU.
        threads: CPU threads; None takes one per physical core.
    """

    backend: str | Backend | None = None
    precision: str | None = None
    device: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Plan:
    """What runs the bundle.

    Attributes:
        backend: the opened SDK. `device`: the GPU's index, `device_key`: what the backend calls it.
        precision: of every graph, or `AUTO`. `form`: of the graphs that have more than one.
        canvases: those for which every graph can run.
        engines: (graph, canvas) → its engine; what is not in it runs from its graph file.
        notes: what the user may want to know about the choice.
        precisions: with `AUTO`, that of each graph; else empty.
    """

    backend: Backend
    device: int
    device_key: str
    precision: str
    canvases: tuple[Size, ...]
    engines: dict[tuple[str, Size | None], EngineSpec]
    notes: tuple[str, ...] = ()
    form: str = "typed"
    precisions: Mapping[str, str] = field(default_factory=dict)

    def precision_of(self, graph: str) -> str:
        """The precision of the graph with this name."""
        return self.precisions.get(graph, self.precision)

    def all_precisions(self) -> tuple[str, ...]:
        """Every precision that is in use."""
        return tuple(dict.fromkeys(self.precisions.values())) or (self.precision,)

    def ungated(self) -> list[EngineSpec]:
        """Engines that have never run on their device. A selection was gated as a whole."""
        return [engine for engine in self.engines.values() if engine.gate is None and not self.precisions]

    def ungated_text(self, bundle: Bundle) -> list[tuple[GraphSpec, EngineSpec]]:
        """Text encoders with an engine for this device that has never run on it."""
        graphs = [graph for graph in bundle.manifest.graphs if graph.name == "text"]
        found = [(graph, self.text_engine(bundle, graph)) for graph in graphs]
        return [(graph, engine) for graph, engine in found if engine is not None and engine.gate is None]

    def text_engine(self, bundle: Bundle, graph: GraphSpec) -> EngineSpec | None:
        """The engine of a text encoder for this device, if there is one that has not failed."""
        return _usable(bundle, self.backend.name, self.device_key, graph)

    def open(self, bundle: Bundle, graph: GraphSpec) -> Session:
        """A session of the graph, from its engine or its file. Raises BundleError or BackendError."""
        engine = self.engines.get((graph.name, graph.canvas))
        return self.backend.open(bundle.graph_files(engine or graph), graph, self.device)

    def open_text(self, bundle: Bundle, graph: GraphSpec) -> Session:
        """A session of the text encoder: its engine, or else the graph on onnxruntime: it runs once per class list."""
        engine = self.text_engine(bundle, graph)
        if engine is not None:
            return self.backend.open(bundle.graph_files(engine), graph, self.device)
        if self.backend.name in RUN_GRAPHS:
            return self.backend.open(bundle.graph_files(graph), graph, self.device)
        runner = get_backend("onnxruntime")
        if not runner.probe().works:
            found = f"{self.backend.name} has no engine of the text encoder here, and onnxruntime is not installed"
            raise BackendError(
                "encode class names", found, build_command(bundle.path, self.backend.name, graph.precision)
            )
        return runner.open(bundle.graph_files(graph), graph)


def form_for(backend: str, device_key: str) -> str:
    """The form of graph that a backend runs on a device: a CPU computes in fp32 around its integer products."""
    return "plain" if backend in RUN_GRAPHS and not device_key.startswith("cuda") else "typed"


def build_command(path: Path, backend: str, precision: str | None) -> str:
    """What to do about a missing engine, with the exact command."""
    wanted = f" --precision {precision}" if precision else ""
    return f"build it on this machine: edgeseg build {path} --backend {backend}{wanted}"


def choose(bundle: Bundle, graphs: Sequence[str], request: Request) -> Plan:
    """The plan for `graphs`, the names of the family's chain.

    Raises:
        BackendError: no backend, or not the one asked for, works here.
        BundleError: there is no usable engine; the message holds the command that builds one.
    """
    if request.precision not in (None, AUTO, *bundle.precisions()):
        found = f"it holds {', '.join(bundle.precisions())}"
        todo = f"make it: edgeseg quantize {bundle.path} --precision {request.precision}"
        raise BundleError(f"open {bundle.path} as {request.precision}", found, todo)
    reasons = []
    for backend in _candidates(bundle, request):
        probe = backend.probe(request.device)
        if not probe.works or probe.device is None:
            reasons.append(f"{backend.name} does not work here ({probe.why})")
            continue
        if request.precision in (None, AUTO):
            plan, reason = _selected(bundle, graphs, backend, (request.device, probe.device))
            if plan is not None:
                return _noted(plan, reasons)
            reasons += reason or [f"--precision auto chose nothing for {probe.device}"] * (request.precision == AUTO)
        for precision in _precisions(bundle, request, probe):
            plan = _plan(bundle, graphs, backend, (request.device, probe.device, precision))
            if plan is not None:
                return _noted(plan, reasons)
            reasons.append(_why_not(bundle, backend.name, probe.device, precision))
    raise _nothing(bundle, request, reasons)


def _candidates(bundle: Bundle, request: Request) -> list[Backend]:
    if isinstance(request.backend, str):
        return [get_backend(request.backend, request.threads)]
    if request.backend is not None:
        return [request.backend]
    built = {engine.backend for engine in bundle.manifest.engines} | {"onnxruntime"}
    return [get_backend(name, request.threads) for name in BACKENDS if name in built and name != "fake"]


def _precisions(bundle: Bundle, request: Request, probe: Probe) -> list[str]:
    if request.precision is not None:
        return [precision for precision in bundle.precisions() if precision == request.precision]
    order = _CPU_PRECISIONS if str(probe.device).startswith(("cpu", "fake")) else _GPU_PRECISIONS
    return [precision for precision in order if precision in bundle.precisions()]


def _plan(bundle: Bundle, graphs: Sequence[str], backend: Backend, place: tuple[int, str, str]) -> Plan | None:
    device, key, precision = place
    form = form_for(backend.name, key)
    engines: dict[tuple[str, Size | None], EngineSpec] = {}
    canvases = []
    for canvas in bundle.manifest.canvases:
        specs = [bundle.graph(name, precision, canvas, form) for name in graphs]
        found = {(spec.name, spec.canvas): _usable(bundle, backend.name, key, spec) for spec in specs}
        if all(_runs(bundle, backend.name, key, spec, found[spec.name, spec.canvas]) for spec in specs):
            canvases.append(canvas)
            engines |= {place: engine for place, engine in found.items() if engine is not None}
    return Plan(backend, device, key, precision, tuple(canvases), engines, form=form) if canvases else None


def _selected(
    bundle: Bundle, graphs: Sequence[str], backend: Backend, place: tuple[int, str]
) -> tuple[Plan | None, list[str]]:
    """The plan of the selection for this device; if there is one that is void, why."""
    device, key = place
    made = [one for one in bundle.manifest.selections if one.backend == backend.name and matches(one.device, key)]
    if not made:
        return None, []
    engines = _selected_engines(bundle, graphs, made[0], key)
    if engines is None:
        return None, [f"what --precision auto chose for {made[0].device} was built again since, so it chooses nothing"]
    form, precisions = form_for(backend.name, key), made[0].precisions
    return Plan(backend, device, key, AUTO, made[0].canvases, engines, form=form, precisions=precisions), []


def _selected_engines(
    bundle: Bundle, graphs: Sequence[str], selection: Selection, key: str
) -> dict[tuple[str, Size | None], EngineSpec] | None:
    """The engines that were gated together; None if one of them is no longer there."""
    files, engines = bundle.manifest.files, {}
    for canvas in selection.canvases:
        for name in graphs:
            precision = selection.precisions.get(name, "")
            found = [g for g in bundle.manifest.graphs if (g.name, g.precision) == (name, precision)]
            current = [
                e for g in found if g.canvas in (canvas, None) for e in _current(bundle, selection.backend, key, g)
            ]
            same = [e for e in current if e.file in files and selection.engines.get(e.file) == files[e.file].sha256]
            if not same:
                return None
            engines[name, same[0].canvas] = same[0]
    return engines


def _usable(bundle: Bundle, backend: str, key: str, graph: GraphSpec) -> EngineSpec | None:
    """The engine of a graph for this device that has not failed its gate."""
    current = _current(bundle, backend, key, graph)
    return next((engine for engine in current if engine.gate is None or engine.gate.passed), None)


def _current(bundle: Bundle, backend: str, key: str, graph: GraphSpec) -> list[EngineSpec]:
    """The engines made for this device from the graph as it is now, in whichever form; those for it alone first."""
    files = bundle.manifest.files
    forms = [one.file for one in bundle.manifest.graphs if made_of(one) == made_of(graph)]
    digests = {files[file].sha256 for file in forms if file in files}
    fitting = [
        engine
        for engine in bundle.manifest.engines
        if made_of(engine) == made_of(graph)
        and (not digests or engine.source_sha256 in digests)  # none: a pack left the graph files out
        and engine.backend == backend
        and matches(engine.device, key)
    ]
    return sorted(fitting, key=lambda engine: engine.device != key)


def _runs(bundle: Bundle, backend: str, key: str, graph: GraphSpec, found: EngineSpec | None) -> bool:
    """Whether a graph can run: from its engine, or from its file if no engine of it has failed its gate."""
    return found is not None or (backend in RUN_GRAPHS and not _current(bundle, backend, key, graph))


def _why_not(bundle: Bundle, backend: str, key: str, precision: str) -> str:
    engines = [e for e in bundle.manifest.engines if (e.backend, e.precision) == (backend, precision)]
    if not engines:
        return f"it holds no {precision} engine for {backend}"
    devices = sorted({engine.device for engine in engines})
    if not any(matches(device, key) for device in devices):
        return f"its {backend} {precision} engines were built for {', '.join(devices)} and this machine is {key}"
    failed = [e.graph for e in engines if matches(e.device, key) and e.gate is not None and not e.gate.passed]
    if failed:
        return f"its {backend} {precision} engines of {', '.join(sorted(set(failed)))} failed their gate"
    return (
        f"its {backend} {precision} engines for {key} are incomplete, or were built from other graphs than it holds now"
    )


def _noted(plan: Plan, reasons: Sequence[str]) -> Plan:
    return replace(plan, notes=tuple(reasons))


def _nothing(bundle: Bundle, request: Request, reasons: Sequence[str]) -> BackendError | BundleError:
    name = request.backend if isinstance(request.backend, str) else getattr(request.backend, "name", None)
    asked = f"open {bundle.path}" + (f" with {name}" if name else "")
    if reasons and all("does not work here" in reason for reason in reasons):
        return BackendError(asked, "; ".join(reasons), "see `edgeseg doctor` for what to install")
    backend = name or next((engine.backend for engine in bundle.manifest.engines), "onnxruntime")
    return BundleError(asked, "; ".join(reasons), build_command(bundle.path, backend, request.precision))
