"""What a repair does step by step, on several canvases, with a compiler and a gate that do what a test says."""

import json

import pytest

from edgeseg.engines import repair as module
from edgeseg.engines.builder import build
from edgeseg.engines.ladder import Rung
from edgeseg.engines.making import Built, Unchanged, engine_of
from edgeseg.engines.request import Request
from edgeseg.errors import BackendError, BuildError, GateError
from edgeseg.reference import Limits, Report, TensorCheck
from tests.engines.fake_device import DeviceCompiler
from tests.tiny_bundle import make_bundle

pytestmark = pytest.mark.onnx

A, B, C = "32x32", "32x48", "48x48"
CANVASES = ((32, 32), (32, 48), (48, 48))
RUNGS = tuple(Rung(name, lambda _spec, name=name: name) for name in ("one", "two"))


class Script:
    """What the compiler and the gate do.

    Attributes:
        state: "sam 32x32" → the change that its engine has now; absent: none.
        compiler: (graph and canvas, change) → what making it raises.
        passes: tells from the state whether a graph's tensor is right on a canvas.
        made: what was made, in order. `built`: the engines to begin with.
    """

    built: list[Built]

    def __init__(self, passes, compiler=None):
        self.state, self.compiler, self.passes, self.made = {}, compiler or {}, passes, []

    def make_engine(self, path, compiler, spec, request, *, advance, change=None):
        place = f"{spec.name} {'x'.join(map(str, spec.canvas or ('any',)))}"
        rung = change.rewrite if change else None
        if (place, rung) in self.compiler:
            raise self.compiler[place, rung]
        self.made.append((place, rung))
        self.state[place] = rung
        engine = next(one.engine for one in self.built if (one.engine.graph, one.engine.canvas) == key(spec))
        return Built(engine, 7, compile_s=2.5, layers={"rung": rung})

    def check(self, canvases):
        tensors = [
            TensorCheck(label, 0, graph, f"of_{graph}", 1.0 if self.passes(self.state, graph, label) else 0.5, 0.0)
            for label in ("x".join(map(str, canvas)) for canvas in canvases)
            for graph in ("sam", "head")
        ]
        return Report(Limits(0.9, 0.9), tuple(tensors), ())


def key(spec):
    return spec.name, spec.canvas


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("steps") / "a.bundle", canvases=CANVASES)


@pytest.fixture
def run(bundle, monkeypatch):
    """A function: a repair by a script; gives the engines and the report."""
    written = []

    def recorded(_bundle, _plan, _report, _canvases):
        return [item.engine for item in built]

    built = [Built(engine_of(bundle, DeviceCompiler(), graph), 1, kept=True) for graph in bundle.manifest.graphs]

    def go(script, ladder=lambda *_: iter(RUNGS)):
        script.built = built
        monkeypatch.setattr(module, "rungs", ladder)
        monkeypatch.setattr(module, "make_engine", script.make_engine)
        monkeypatch.setattr(module, "record", recorded)
        monkeypatch.setattr(module, "discard", lambda *_: None)
        monkeypatch.setattr(module._Repair, "_plan", lambda *_: None)
        monkeypatch.setattr(module._Repair, "_check", lambda _self, canvases: script.check(canvases))
        monkeypatch.setattr(module._Repair, "_write_report", lambda self: written.append(json.loads(self._text())))
        wish = Request("fp32", repair=True)
        try:
            made = module.repair(bundle.path, DeviceCompiler(), wish, built, report=script.check(CANVASES), shown=False)
        except GateError:
            made = None
        return made, written[-1]

    return go


def outcomes(report):
    return [(one["graph"], one["canvas"], one["change"], one["outcome"]) for one in report["tried"]]


def refusal(words="no"):
    return BuildError("compile", words, "do not")


def test_change_that_is_not_kept_is_taken_back_on_every_canvas(run):
    """The first rung repairs A; the second, which B would need, reaches A too and is refused on C."""

    def passes(state, graph, canvas):
        return graph != "sam" or state.get(f"sam {canvas}") == ("two" if canvas == B else "one")

    script = Script(passes, {(f"sam {C}", "two"): refusal()})
    made, report = run(script)
    assert made is None
    assert script.state == {f"sam {canvas}": "one" for canvas in (A, B, C)}
    assert outcomes(report) == [
        ("sam", A, "one", module.PASSES),
        ("sam", B, "two", module.PASSES),
        ("sam", C, "two", module.REFUSED),
    ]


def test_change_that_a_later_canvas_refuses_is_not_said_to_be_kept(run):
    def passes(state, graph, canvas):
        return graph != "head" or "one" in (state.get(f"head {canvas}"), state.get(f"sam {canvas}"))

    script = Script(passes, {(f"head {B}", "one"): refusal()})
    made, report = run(script)
    assert ("head", A, "one", module.PASSES) in outcomes(report)
    assert report["kept"] == {"sam": "one"}
    assert {script.state.get(f"head {canvas}") for canvas in (A, B, C)} == {None}
    assert made is not None


def test_nothing_is_said_to_be_kept_when_all_is_removed(run):
    script = Script(lambda state, graph, canvas: state.get(f"{graph} {canvas}") == "one" and canvas == A)
    made, report = run(script)
    assert made is None
    assert report["kept"] == {}
    assert ("sam", A, "one", module.PASSES) in outcomes(report)


def test_rungs_that_failed_are_tried_again_after_another_graph_was_changed(run):
    """On A the head is wrong because of its input; on B it is wrong by itself, and a rung that failed on A helps."""

    def passes(state, graph, canvas):
        own = state.get(f"head {B}") == "two" if canvas == B else True
        return graph != "head" or (own and state.get(f"sam {canvas}") == "one")

    script = Script(passes)
    made, report = run(script)
    assert made is not None
    assert report["kept"] == {"sam": "one", "head": "two"}


def test_graph_that_fp32_does_not_help_comes_after_those_that_it_lives_on(run, monkeypatch):
    """What is wrong may come with its inputs; where changing those does not help either, its own rungs are tried."""

    def passes(state, graph, canvas):
        return graph != "head" or canvas != A or state.get(f"head {A}") == "two"

    monkeypatch.setattr(module, "whole", lambda _bundle, _spec: Rung("whole", lambda _: "whole"))
    script = Script(passes)
    made, report = run(script)
    assert made is not None
    assert outcomes(report) == [
        ("head", A, "whole", module.FAILS),
        ("clip_trunk", A, "whole", module.FAILS),
        ("sam", A, "one", module.FAILS),
        ("sam", A, "two", module.FAILS),
        ("head", A, "one", module.FAILS),
        ("head", A, "two", module.PASSES),
    ]
    changed = {place: change for place, change in script.state.items() if change}
    assert changed == {f"head {canvas}": "two" for canvas in (A, B, C)}


def test_more_blocks_are_lifted_where_a_later_canvas_needs_them(run, monkeypatch):
    steps = [Rung(str(count), lambda _, count=count: count) for count in range(1, 8)]
    monkeypatch.setattr(module, "lifts", lambda *_: steps)

    def passes(state, graph, canvas):
        return graph != "sam" or int(state.get(f"sam {canvas}") or 0) >= {A: 3, B: 6, C: 1}[canvas]

    script = Script(passes)
    made, report = run(script, lambda *_: iter(()))
    assert made is not None
    assert report["kept"] == {"sam": "6"}
    assert set(script.state.values()) == {6}
    assert [one["change"] for one in report["tried"]] == ["1", "2", "4", "3", "4", "5", "7", "6"]


def test_change_that_does_not_run_is_one_that_fails(run):
    class Unopened(Script):
        def check(self, canvases):
            if "one" in self.state.values():
                raise BackendError("open", "no such kernel", "wait")
            return super().check(canvases)

    made, report = run(Unopened(lambda state, graph, canvas: graph != "sam" or state.get(f"sam {canvas}") == "two"))
    assert outcomes(report)[0] == ("sam", A, "one", module.FAILS)
    assert report["tried"][0]["found"] == "does not run: no such kernel"
    assert report["kept"] == {"sam": "two"}
    assert made is not None


def test_canvas_on_which_there_is_nothing_to_change_stays_as_it_is(run):
    script = Script(
        lambda state, graph, canvas: graph != "sam" or canvas == B or state.get(f"sam {canvas}") == "one",
        {(f"sam {B}", "one"): Unchanged()},
    )
    made, report = run(script)
    assert report["kept"] == {"sam": "one"}
    assert ("sam", B, "one", module.NOTHING) in outcomes(report)
    assert f"sam {B}" not in script.state
    assert made is not None


def test_engines_that_were_changed_are_shown_as_they_are_now_and_the_others_as_they_were(run):
    made, _ = run(Script(lambda state, graph, canvas: graph != "sam" or bool(state.get(f"sam {canvas}"))))
    sam = [item for item in made if item.engine.graph == "sam"]
    assert [(item.kept, item.compile_s, item.size_bytes, item.layers) for item in sam] == [
        (False, 2.5, 7, {"rung": "one"})
    ] * 3
    assert all(item.kept and not item.layers for item in made if item.engine.graph != "sam")


def test_engines_that_do_not_run_here_cannot_be_repaired(bundle):
    with pytest.raises(BuildError, match="do not run on this machine"):
        build(bundle.path, DeviceCompiler(runs_here=False), Request("fp32", repair=True), shown=False)


def test_blocks_that_cannot_be_told_apart_leave_the_whole_graph_to_try(run, monkeypatch):
    def lifts(_bundle, _spec, blame):
        assert blame() == []
        return [RUNGS[0]]

    def refused(*_):
        raise refusal("too many outputs")

    monkeypatch.setattr(module._Repair, "_blamed", refused)
    monkeypatch.setattr(module, "lifts", lifts)
    script = Script(lambda state, graph, canvas: graph != "sam" or bool(state.get(f"sam {canvas}")))
    made, report = run(script, lambda *_: iter(()))
    assert report["tried"][0]["found"] == "too many outputs"
    assert report["kept"] == {"sam": "one"}
    assert made is not None
