"""What to build, and which graphs of the bundle that means."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec, Size, size_text

from .compiler import Compiler

PREFERRED = {"onnxruntime": ("fp32",)}  # a CPU computes in fp32 and would only convert back and forth
PREFERRED_GPU = ("fp16", "fp32")


@dataclass(frozen=True)
class Request:
    """What to build: None or empty means what suits the machine, and everything that the bundle holds.

    Attributes:
        precision: one of `PRECISIONS`.
        canvases: (H, W) of each canvas.
        memory_limit_bytes: most scratch memory that an engine may use.
        repair: walk the ladder when the gate fails.
        tolerant: keep an engine that is not in the precision that its graph asks for, and say so.
    """

    precision: str | None = None
    canvases: tuple[Size, ...] = ()
    memory_limit_bytes: int | None = None
    repair: bool = False
    tolerant: bool = False


def wanted(bundle: Bundle, compiler: Compiler, request: Request) -> list[GraphSpec]:
    """The graphs to build, one per name and canvas. Raises BuildError if the bundle lacks the precision or a canvas."""
    precision = request.precision or _default_precision(bundle, compiler.backend)
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
    names = dict.fromkeys((graph.name, graph.canvas) for graph in mine)
    return [bundle.graph(name, precision, canvas, compiler.form) for name, canvas in names]


def report_file(bundle: Bundle, compiler: Compiler, request: Request) -> str:
    """Where in the bundle the report of a repair is kept.

    It names the canvases when they are not all: repairs of different ones, at once or in turn, have a report each.
    """
    every = bundle.manifest.canvases
    mine = [size_text(canvas) for canvas in every if canvas in request.canvases]
    part = "" if len(mine) == len(every) else "-" + "+".join(mine)
    return f"reports/repair-{compiler.backend}-{compiler.device}-{request.precision}{part}.json"


def _default_precision(bundle: Bundle, backend: str) -> str:
    held = bundle.precisions()
    return next((p for p in PREFERRED.get(backend, PREFERRED_GPU) if p in held), held[0])


def check_limit(compiler: Compiler, request: Request) -> None:
    """Raise a BuildError for a limit that nothing would obey."""
    if compiler.in_place and request.memory_limit_bytes is not None:
        found = f"{compiler.backend} compiles nothing ahead, so there is no memory to limit"
        raise BuildError("build with --memory-limit", found, "leave the option out")


def label(graph: GraphSpec) -> str:
    """Name and canvas of a graph."""
    return f"{graph.name} {size_text(graph.canvas)}"
