"""One graph by itself in every precision: right or wrong, and how fast, on inputs that are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from edgeseg.backends.base import Array, Session, Stream
from edgeseg.bundle import Bundle
from edgeseg.chains import Chains
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report, check_graph, references, run_reference
from edgeseg.schema import EngineSpec, GraphSpec, Size, size_text
from edgeseg.selection import Plan

from .compiler import Compiler
from .making import Built
from .picking import Candidate
from .timing import added, measure

Input = tuple[dict[str, Array], dict[str, Array]]  # a reference input, and every tensor of an exact chain on it
Made = tuple[GraphSpec, EngineSpec]


def exact_tensors(bundle: Bundle, base: Plan, canvas: Size) -> Input:
    """One reference input of a canvas, and every tensor that the chain of a plan makes of it."""
    pipeline, stored = get_pipeline(bundle.manifest), references(bundle, size_text(canvas))[0]
    with closing(Chains(bundle, base, pipeline.graphs)) as chains:
        return stored, run_reference(pipeline, chains.chain(canvas), stored, canvas)


@dataclass(frozen=True)
class Alone:
    """Judges and times graphs.

    Attributes:
        bundle: holds the engines.
        compiler: made them.
        base: the plan of the chain whose tensors are the inputs.
        built: precision → its engines, the most exact one first.
    """

    bundle: Bundle
    compiler: Compiler
    base: Plan
    built: Mapping[str, list[Built]]

    def candidates(self, name: str, inputs: Mapping[Size, Input]) -> list[Candidate]:
        """Every precision of a graph, over all its canvases, the most exact first."""
        found: dict[str, Candidate] = {}
        parts = []
        for canvas, (stored, tensors) in inputs.items():
            made = self._distinct(name, canvas)
            reports, seconds = self._run(made, stored, tensors)
            for precision, (graph, engine) in made.items():
                found[precision] = _worse(found.get(precision), self._candidate(graph, engine, reports[precision]))
            parts.append(seconds)
            if all(graph.canvas is None for graph, _ in made.values()):
                break  # it is the same for every canvas
        rounds = added(parts)
        timed = {precision: replace(one, seconds=tuple(rounds[precision])) for precision, one in found.items()}
        return [timed.get(precision) or self._shared(name, precision, timed, inputs) for precision in self.built]

    def engine(self, name: str, precision: str, canvas: Size) -> EngineSpec:
        """The engine of a graph."""
        graph = self.bundle.graph(name, precision, canvas, self.compiler.form)
        wanted = (self.compiler.backend, self.compiler.device, graph.name, graph.precision, graph.canvas)
        engines = self.bundle.manifest.engines
        return next(e for e in engines if (e.backend, e.device, e.graph, e.precision, e.canvas) == wanted)

    def _digest(self, engine: EngineSpec) -> str:
        return self.bundle.manifest.files[engine.file].sha256

    def _distinct(self, name: str, canvas: Size) -> dict[str, Made]:
        """Precision → graph and engine; of precisions that share an engine only the most exact one."""
        found: dict[str, Made] = {}
        seen: set[str] = set()
        for precision in self.built:
            engine = self.engine(name, precision, canvas)
            if self._digest(engine) not in seen:
                seen.add(self._digest(engine))
                found[precision] = (self.bundle.graph(name, precision, canvas, self.compiler.form), engine)
        return found

    def _shared(
        self, name: str, precision: str, timed: Mapping[str, Candidate], inputs: Mapping[Size, Input]
    ) -> Candidate:
        """A precision whose engine is that of a more exact one."""
        canvas = next(iter(inputs))
        digest = self._digest(self.engine(name, precision, canvas))
        other = next(o for o in timed if self._digest(self.engine(name, o, canvas)) == digest)
        return replace(timed[other], precision=precision, same_as=other)

    def _candidate(self, graph: GraphSpec, engine: EngineSpec, report: Report) -> Candidate:
        worst = report.bad_tensors[0] if report.bad_tensors else report.furthest
        items = self.built[graph.precision]
        mine = next(one for one in items if (one.engine.graph, one.engine.canvas) == (graph.name, graph.canvas))
        return Candidate(
            graph.name,
            graph.precision,
            worst.sentence if worst else "there is no reference tensor of it",
            passes=not report.bad_tensors,
            closeness=worst.closeness if worst else 1.0,
            obtained=engine.layers,
            differences=mine.differences,
        )

    def _run(
        self, made: Mapping[str, Made], stored: Mapping[str, Array], tensors: Mapping[str, Array]
    ) -> tuple[dict[str, Report], dict[str, list[float]]]:
        """What each precision makes of the same inputs, and its seconds per round."""
        backend, device = self.base.backend, self.base.device
        stream = backend.streams(1, device)[0]
        reports, runs = {}, {}
        with ExitStack() as stack:
            for precision, (graph, engine) in made.items():
                session = backend.open(self.bundle.graph_files(engine), graph, device)
                stack.callback(session.close)
                feed = {spec.name: session.upload(tensors[spec.name]) for spec in graph.inputs}
                results = session.run(feed, stream)
                arrays = {name: session.download(tensor) for name, tensor in results.items()}
                reports[precision] = check_graph(self.bundle, graph, arrays, (size_text(graph.canvas), 0), stored)
                runs[precision] = _runner(session, feed, stream)
            return reports, measure(runs)


def _runner(session: Session, feed: Mapping[str, Any], stream: Stream) -> Callable[[], None]:
    def run() -> None:
        session.run(feed, stream)
        stream.synchronize()

    return run


def _worse(a: Candidate | None, b: Candidate) -> Candidate:
    """Of two canvases of one graph and precision the one that is further off."""
    return b if a is None else min(a, b, key=lambda one: (one.passes, one.closeness))
