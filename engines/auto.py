"""`edgeseg build --precision auto`: builds what the bundle holds, and takes for each graph the fastest that passes.

A graph is judged and timed alone, on the inputs that the most exact chain of this device gives it. What was picked then
passes the gate together, from the image to the labels; if it does not, the pick that is furthest off steps back to the
next more exact one, until it does. The bundle keeps the choice, and a report with every measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeseg.bundle import Bundle
from edgeseg.environment import environment
from edgeseg.errors import BackendError, BuildError, GateError
from edgeseg.pipelines import get_pipeline
from edgeseg.reference import Report
from edgeseg.schema import Gate, Selection
from edgeseg.selection import AUTO, Plan

from .alone import Alone, exact_tensors
from .builder import make_engines
from .compiler import Compiler
from .gate import TEXT, check, check_plan, is_selected, record, remove, words
from .making import Built, canvases_of
from .picking import EXACT_FIRST, Candidate, Row, explain, pick
from .progress import WorkBar
from .request import Request

ASKED = "build with --precision auto"


@dataclass(frozen=True)
class Chain:
    """A whole chain in one precision: whether it passes its gate, and what the gate found or why it was not built."""

    precision: str
    passes: bool
    found: str


@dataclass(frozen=True)
class Auto:
    """What was measured and chosen: whole chains, the rows of the table, the selection, and what was built."""

    chains: tuple[Chain, ...]
    rows: tuple[Row, ...]
    selection: Selection
    built: tuple[Built, ...]


def build_auto(path: Path, compiler: Compiler, request: Request, shown: bool = True) -> Auto:
    """Build, gate and time every precision that the bundle holds, and keep the choice in the bundle.

    Raises:
        BuildError: nothing can be timed here, or no precision can be built.
        GateError: no precision gives the reference results as a whole.
    """
    if not compiler.runs_here:
        found = f"engines for {compiler.device} do not run on this machine, so nothing can be timed"
        raise BuildError(ASKED, found, "name a precision, or build on the device")
    return _Auto(path, compiler, request, shown).run()


@dataclass
class _Auto:
    path: Path
    compiler: Compiler
    request: Request
    shown: bool
    chains: list[Chain] = field(default_factory=list)
    built: dict[str, list[Built]] = field(default_factory=dict)
    barred: dict[str, dict[str, str]] = field(default_factory=dict)  # graph → precision → what was wrong

    def __post_init__(self) -> None:
        self.place = (self.compiler.backend, self.compiler.device)
        self.file = f"reports/auto-{self.compiler.backend}-{self.compiler.device}.json"

    def run(self) -> Auto:
        self._build()
        base = self._gate_chains()
        bundle = Bundle.open(self.path)
        names = get_pipeline(bundle.manifest).graphs
        alone = Alone(bundle, self.compiler, base, self.built)
        inputs = {canvas: exact_tensors(bundle, base, canvas) for canvas in self.canvases}
        measured = {}
        with WorkBar("timing", dict.fromkeys(names, 1.0), self.shown) as bar:
            for name in names:
                with bar.piece(name):
                    measured[name] = alone.candidates(name, inputs)
        chosen, plan, gate = self._settle(alone, measured)
        rows = [row for name in names for row in explain(measured[name], chosen[name], self.barred.get(name, {}))]
        selection = self._keep(bundle, plan, gate, rows)
        self._remove_failed(rows)
        return Auto(tuple(self.chains), tuple(rows), selection, tuple(b for part in self.built.values() for b in part))

    def _build(self) -> None:
        """Every precision; one that cannot be built is left out, and why is written down."""
        refused: list[BuildError] = []
        for precision in sorted(Bundle.open(self.path).precisions(), key=EXACT_FIRST.index):
            request = replace(self.request, precision=precision, tolerant=True)
            try:
                self.built[precision] = make_engines(self.path, self.compiler, request, self.shown)
            except BuildError as error:
                refused.append(error)
                self.chains.append(Chain(precision, False, f"not built: {error.found}"))
        if not self.built:
            raise refused[0]
        self.canvases = canvases_of(next(iter(self.built.values())))

    def _gate_chains(self) -> Plan:
        """Gate each precision as a whole; the plan of the most exact one that passes."""
        passing, failures = [], []
        for precision in list(self.built):
            bundle = Bundle.open(self.path)
            try:
                plan, report = check(bundle, self.compiler.backend, precision, self.canvases, self.shown)
            except BackendError as error:
                del self.built[precision]
                failures.append(error.found)
                self.chains.append(Chain(precision, False, f"does not run: {error.found}"))
                continue
            record(bundle, plan, report, self.canvases)
            failures += report.failures[:1]
            found = report.failures[0] if report.failures else words(_gate(report))
            self.chains.append(Chain(precision, not report.failures, found))
            passing += [] if report.failures else [plan]
        if not passing:
            self._remove_failed([])
            todo = "run `edgeseg verify`, and report its output; --repair may mend one precision"
            raise GateError(ASKED, f"no precision gives the reference results; {failures[0]}", todo)
        return passing[0]

    def _settle(self, alone: Alone, measured: Mapping[str, list[Candidate]]) -> tuple[dict[str, Candidate], Plan, Gate]:
        """The picks that pass the gate together."""
        exact = EXACT_FIRST.index(alone.base.precision)
        while True:
            chosen = {name: self._pick(found, name, alone.base.precision) for name, found in measured.items()}
            plan = self._plan(alone, chosen)
            report = check_plan(alone.bundle, plan, self.canvases, self.shown)
            if not report.failures:
                return chosen, plan, _gate(report)
            movable = [one for one in chosen.values() if EXACT_FIRST.index(one.precision) > exact]
            if not movable:
                raise GateError(ASKED, report.failures[0], "build with one precision, or run `edgeseg verify`")
            worst = min(movable, key=lambda one: one.closeness)
            self.barred.setdefault(worst.graph, {})[worst.precision] = report.failures[0]

    def _pick(self, found: list[Candidate], name: str, base: str) -> Candidate:
        """The best of a graph; if none passes alone, the one that passed in the most exact chain."""
        best = pick(found, frozenset(self.barred.get(name, {})))
        mine = next(one for one in found if one.precision == base)
        return best or next(one for one in found if one.precision == (mine.same_as or base))

    def _plan(self, alone: Alone, chosen: Mapping[str, Candidate]) -> Plan:
        made = [alone.engine(name, one.precision, canvas) for name, one in chosen.items() for canvas in self.canvases]
        engines = {(engine.graph, engine.canvas): engine for engine in made}
        precisions = {name: one.precision for name, one in chosen.items()} | {TEXT: alone.base.precision}
        return replace(
            alone.base, precision=AUTO, precisions=precisions, canvases=self.canvases, engines=engines, notes=()
        )

    def _keep(self, bundle: Bundle, plan: Plan, gate: Gate, rows: list[Row]) -> Selection:
        """Write the selection, and the report that says why."""
        files = bundle.manifest.files
        digests = {engine.file: files[engine.file].sha256 for engine in plan.engines.values()}
        selection = Selection(*self.place, dict(plan.precisions), self.canvases, gate, digests, self.file)
        different = {row.candidate.graph for row in rows if row.chosen and row.candidate.differences}
        with bundle.edit() as edit:
            edit.stage(self.file).write_text(self._text(selection, rows), "utf-8")
            others = (one for one in edit.manifest.selections if (one.backend, one.device) != self.place)
            edit.update(selections=(*others, selection))
            for engine in plan.engines.values():
                if engine.graph in different:
                    edit.add_engine(replace(engine, report=self.file))
        return selection

    def _remove_failed(self, rows: list[Row]) -> None:
        """Remove chains that failed their gate, and what is not what its graph asks for; not what is selected."""
        different = {(row.candidate.graph, row.candidate.precision) for row in rows if row.candidate.differences}
        failed = {chain.precision for chain in self.chains if not chain.passes}
        with Bundle.open(self.path).edit() as edit:
            before = edit.manifest
            for engine in before.engines:
                mine = (engine.backend, engine.device) == self.place  # others fit the device too, and never ran
                covered = engine.canvas is None or engine.canvas in self.canvases
                unwanted = engine.precision in failed or (engine.graph, engine.precision) in different
                if mine and covered and unwanted and not is_selected(before, engine):
                    remove(edit, engine)

    def _text(self, selection: Selection, rows: list[Row]) -> str:
        where = {"backend": selection.backend, "device": selection.device, "precisions": selection.precisions}
        chains, graphs = [asdict(chain) for chain in self.chains], [entry(row) for row in rows]
        body = {"schema": 1, "kind": "auto", **where, "chains": chains, "graphs": graphs, "environment": environment()}
        return json.dumps(body, indent=2, allow_nan=False) + "\n"


def entry(row: Row) -> dict[str, Any]:
    """A row of the table as plain JSON; docs/json.md has the keys."""
    one = row.candidate
    return {
        "graph": one.graph,
        "precision": one.precision,
        "chosen": row.chosen,
        "reason": row.reason,
        "median_ms": row.median_ms,
        "speed": asdict(row.against) if row.against else None,
        "rounds_ms": [round(1e3 * second, 4) for second in one.seconds],
        "passes": one.passes,
        "found": one.found,
        "obtained": {kind: dict(counts) for kind, counts in (one.obtained or {}).items()},
        "differences": list(one.differences),
        "same_as": one.same_as or None,
    }


def _gate(report: Report) -> Gate:
    agreement = min((check.agreement for check in report.labels), default=None)
    return Gate(not report.failures, min(check.cosine for check in report.tensors), agreement)
