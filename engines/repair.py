"""`edgeseg build --repair`: walks the ladder for each graph that fails its gate, and keeps the first rung that passes.

Every rung is built, gated and written down, in a report that the bundle keeps. A rung is tried on the canvas that
failed, and if it passes there, on the others. Rungs are tried one at a time, never together, so an engine differs from
its graph in one thing. Of blocks in fp32 as few are kept as pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from edgeseg.bundle import Bundle
from edgeseg.chains import Chains
from edgeseg.environment import environment
from edgeseg.errors import BackendError, BuildError, GateError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report, references, run_reference
from edgeseg.schema import EngineSpec, GraphSpec, Size, parse_size, size_text
from edgeseg.selection import Plan, choose
from edgeseg.selection import Request as Wish

from .blame import Blamed, find_blame
from .compiler import Compiler
from .gate import check, discard, record, words
from .ladder import Rung, fewest, lifts, rungs, whole
from .making import Built, Change, Unchanged, canvases_of, make_engine
from .progress import WorkBar
from .request import Request, label, report_file, wanted

PASSES, FAILS, NOTHING, REFUSED = "passes", "fails", "nothing to change", "refused by the compiler"


@dataclass(frozen=True)
class Try:
    """One rung that was tried: on which graph and canvas, what it changed, how it went, and what the gate found."""

    graph: str
    canvas: str
    change: str
    outcome: str
    found: str = ""


def repair(
    path: Path, compiler: Compiler, request: Request, built: list[Built], *, report: Report, shown: bool = True
) -> list[Built]:
    """Change the graphs that fail, one rung after the other, until the whole chain passes its gate.

    Args:
        path: the bundle.
        compiler: makes the engines.
        request: what was asked for.
        built: the engines that fail, as they were built.
        report: what the gate found of them.
        shown: show progress.

    Returns:
        the engines, with their gates; those that were changed name the report.

    Raises:
        GateError: no rung passes; the engines are removed, the report stays.
    """
    return _Repair(path, compiler, request, built, shown).run(report)


@dataclass
class _Repair:
    path: Path
    compiler: Compiler
    request: Request
    built: list[Built]
    shown: bool
    tries: list[Try] = field(default_factory=list)
    blamed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.precision, self.canvases = self.built[0].engine.precision, canvases_of(self.built)
        self.request = replace(self.request, precision=self.precision, canvases=self.canvases)
        self.specs = {(g.name, g.canvas): g for g in wanted(Bundle.open(self.path), self.compiler, self.request)}
        self.file = report_file(Bundle.open(self.path), self.compiler, self.request)
        self.ladders: dict[str, Iterator[Rung]] = {}
        self.lifts: dict[str, list[Rung]] = {}
        self.kept: dict[str, Rung] = {}
        self.made: dict[tuple[str, Size | None], tuple[Built, Rung | None]] = {}  # what replaced what was built

    def run(self, report: Report) -> list[Built]:
        while report.failures:
            report = self._mend(*self._culprit(report), report)
        bundle = Bundle.open(self.path)
        engines = {(e.graph, e.canvas): e for e in record(bundle, self._plan(bundle), report, self.canvases)}
        self._write_report()
        return [self._rebuilt(item, engines[item.engine.graph, item.engine.canvas]) for item in self.built]

    def _rebuilt(self, item: Built, engine: EngineSpec) -> Built:
        latest, _ = self.made.get((engine.graph, engine.canvas), (item, None))
        return replace(latest, engine=engine)

    def _culprit(self, report: Report) -> tuple[str, Size]:
        """The graph of the first bad tensor; if labels alone are wrong, the graph that is furthest off."""
        found = report.bad_tensors[0] if report.bad_tensors else report.furthest
        names = {name for name, _ in self.specs}
        if found is None or found.graph not in names or found.canvas == "any":
            self._give_up(report)
        return found.graph, parse_size(found.canvas)

    def _spec(self, name: str, canvas: Size) -> GraphSpec:
        return self.specs.get((name, canvas)) or self.specs[name, None]

    def _blame(self, spec: GraphSpec, canvas: Size) -> list[Blamed]:
        """The order of the blocks, on the inputs that the graph gets in the chain."""
        with WorkBar(f"looking for the block of {spec.name}", {"both precisions": 1.0}, self.shown):
            try:
                order = self._blamed(spec, canvas)
            except (BuildError, BackendError) as error:  # the whole graph is still to be tried
                self.tries.append(Try(spec.name, size_text(canvas), "look for the block", REFUSED, error.found))
                order = []
        self.blamed[spec.name] = [one.entry() for one in order]
        return order

    def _blamed(self, spec: GraphSpec, canvas: Size) -> list[Blamed]:
        bundle = Bundle.open(self.path)
        pipeline, plan = get_pipeline(bundle.manifest), self._plan(bundle)
        with closing(Chains(bundle, plan, pipeline.graphs)) as chains:
            stored = references(bundle, size_text(canvas))[0]
            tensors = run_reference(pipeline, chains.chain(canvas), stored, canvas)
        feed = {tensor.name: tensors[tensor.name] for tensor in spec.inputs}
        return find_blame(bundle, self.compiler, plan, spec, feed)

    def _mend(self, culprit: str, canvas: Size, before: Report) -> Report:
        """Change the graph to blame, or else one that it lives on; the report of the whole chain afterwards.

        What is wrong with a graph's output may come with its input: in fp32 throughout it would do no better.
        """
        for name in self._suspects(culprit, canvas, before):
            if self._climb(name, culprit, canvas, before):
                return self._check(self.canvases)
        self._give_up(before)

    def _suspects(self, culprit: str, canvas: Size, before: Report) -> Iterator[str]:
        """A graph and those that it lives on, the nearest first; last the ones that in fp32 throughout do no better."""
        *nearer, first = self._upstream(culprit)
        late = []
        for name in nearer:
            if self._fed_wrong(name, culprit, canvas, before):
                late.append(name)
            else:
                yield name
        yield from (first, *late)

    def _fed_wrong(self, name: str, culprit: str, canvas: Size, before: Report) -> bool:
        """Whether the culprit stays wrong with this graph in fp32: one engine made in place of a ladder of them."""
        spec = self._spec(name, canvas)
        rung = whole(Bundle.open(self.path), spec)
        if rung is None or self._try((name, culprit), canvas, rung, before):
            return False
        self._put(spec, self.kept.get(name))
        return True

    def _upstream(self, culprit: str) -> list[str]:
        """A graph and those whose tensors it gets, through others too; the nearest first."""
        order = get_pipeline(Bundle.open(self.path).manifest).graphs
        needed, found = {tensor.name for tensor in self._any_spec(culprit).inputs}, [culprit]
        for name in reversed(order[: order.index(culprit)]):
            spec = self._any_spec(name)
            if needed & {tensor.name for tensor in spec.outputs}:
                needed |= {tensor.name for tensor in spec.inputs}
                found.append(name)
        return found

    def _any_spec(self, name: str) -> GraphSpec:
        return self._specs(name)[0]

    def _specs(self, name: str) -> list[GraphSpec]:
        """A graph on every canvas."""
        return [spec for (graph, _), spec in self.specs.items() if graph == name]

    def _climb(self, name: str, culprit: str, canvas: Size, before: Report) -> bool:
        """Try rungs of a graph until the culprit passes with one; if none does, the graph is as it was."""

        def works(rung: Rung) -> bool:
            return self._try((name, culprit), canvas, rung, before) and self._spread(name, canvas, rung)

        if name not in self.ladders:
            self.ladders[name] = rungs(self.compiler, Bundle.open(self.path), self._spec(name, canvas))
        found = next(filter(works, self.ladders[name]), None) or self._lift(name, canvas, works)
        if found is not None:
            self.kept[name] = found
        for spec in self._specs(name):
            self._put(spec, self.kept.get(name))
        if name not in self.kept:  # on another canvas, or after another graph was changed, it may be another rung
            del self.ladders[name]
            del self.lifts[name]
        return found is not None

    def _lift(self, name: str, canvas: Size, works: Callable[[Rung], bool]) -> Rung | None:
        """The rung with the fewest blocks in fp32 that works; more than are already, if some are."""
        if name not in self.lifts:
            spec = self._spec(name, canvas)
            self.lifts[name] = lifts(Bundle.open(self.path), spec, lambda: self._blame(spec, canvas))
        steps = self.lifts[name]
        left = steps[steps.index(self.kept[name]) + 1 :] if self.kept.get(name) in steps else steps
        count = fewest(len(left), lambda number: works(left[number - 1]))
        return left[count - 1] if count else None

    def _spread(self, name: str, canvas: Size, rung: Rung) -> bool:
        """Make the same change on the other canvases; whether the compiler took it there too."""
        for spec in [one for one in self._specs(name) if one.canvas not in (canvas, None)]:
            place = (name, size_text(spec.canvas), rung.change)
            try:
                self._make(spec, rung)
            except Unchanged:
                self.tries.append(Try(*place, NOTHING))
                self._put(spec, None)
            except BuildError as error:
                self.tries.append(Try(*place, REFUSED, error.found))
                return False
        return True

    def _try(self, graphs: tuple[str, str], canvas: Size, rung: Rung, before: Report) -> bool:
        """Whether a rung of the first graph repairs the second on one canvas."""
        name, culprit = graphs
        place, spec = (name, size_text(canvas), rung.change), self._spec(name, canvas)
        try:
            differences = self._make(spec, rung)
            found = self._check((canvas,))
        except Unchanged:
            self.tries.append(Try(*place, NOTHING))
            return False
        except BuildError as error:
            self.tries.append(Try(*place, REFUSED, error.found))
            return False
        except BackendError as error:
            self.tries.append(Try(*place, FAILS, f"does not run: {error.found}"))
            self._put(spec, self.kept.get(name))  # or else nothing runs
            return False
        mine = [one.sentence for one in found.bad_tensors if one.graph == culprit]
        wrong = mine if before.bad_tensors else found.failures
        said = "; ".join([*(wrong or [words(found.gate(culprit, None))])[:1], *differences])
        self.tries.append(Try(*place, FAILS if wrong else PASSES, said))
        return not wrong

    def _make(self, spec: GraphSpec, rung: Rung | None) -> tuple[str, ...]:
        change = Change(rung.rewrite(spec), self.file, self._text()) if rung else None
        title = f"repair with {rung.change}" if rung else "take it back"
        with (
            WorkBar(title, {label(spec): 1.0}, self.shown) as bar,
            bar.piece(label(spec)) as advance,
        ):
            made = make_engine(self.path, self.compiler, spec, self.request, advance=advance, change=change)
        self.made[spec.name, spec.canvas] = made, rung
        return made.differences

    def _put(self, spec: GraphSpec, rung: Rung | None) -> None:
        """Make the engine with this rung, unless it is so; None: as it was."""
        _, current = self.made.get((spec.name, spec.canvas), (None, None))
        if current is rung:
            return
        try:
            self._make(spec, rung)
        except Unchanged:  # on this canvas it changes nothing
            self._put(spec, None)

    def _give_up(self, report: Report) -> NoReturn:
        bundle = Bundle.open(self.path)
        discard(bundle, self._plan(bundle), report, self.canvases)
        self.kept.clear()
        self._write_report()
        tried = f"; of {len(self.tries)} changes that were tried none repairs it, see {self.file}"
        asked = f"repair the {self.compiler.backend} engines of {self.path} in {self.precision}"
        raise GateError(asked, report.failures[0] + tried, "build with --precision auto, or with another precision")

    def _plan(self, bundle: Bundle) -> Plan:
        return choose(bundle, get_pipeline(bundle.manifest).graphs, Wish(self.compiler.backend, self.precision))

    def _check(self, canvases: tuple[Size, ...]) -> Report:
        return check(Bundle.open(self.path), self.compiler.backend, self.precision, canvases, self.shown)[1]

    def _write_report(self) -> None:
        with Bundle.open(self.path).edit() as edit:
            edit.stage(self.file).write_text(self._text(), "utf-8")

    def _text(self) -> str:
        where = {"backend": self.compiler.backend, "device": self.compiler.device, "precision": self.precision}
        kept = {name: rung.change for name, rung in self.kept.items()}
        tries = [asdict(one) for one in self.tries]
        body = {"schema": 1, "kind": "repair", **where, "kept": kept, "tried": tries, "blocks": self.blamed}
        return json.dumps(body | {"environment": environment()}, indent=2, allow_nan=False) + "\n"
