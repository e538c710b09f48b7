"""Every precision is built, gated and timed; each graph gets the fastest that passes, and the whole chain passes."""

import functools
import json

import numpy as np
import onnx
import pytest
from onnx import helper

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.engines import alone, timing
from edgeseg.engines.auto import build_auto
from edgeseg.engines.builder import build
from edgeseg.engines.layers import Layer
from edgeseg.engines.obtained import products
from edgeseg.engines.request import Request
from edgeseg.errors import BackendError, BuildError, BundleError, GateError
from edgeseg.reference import Limits
from tests.engines import blocks
from tests.engines.fake_device import KEY, DeviceCompiler

pytestmark = pytest.mark.onnx
CHAIN = ("sam", "clip_trunk", "head", "clip_tail", "score")


@pytest.fixture
def device(device, monkeypatch):
    """A device on which every run takes a second, unless `device.seconds` says otherwise."""
    monkeypatch.setattr(alone, "measure", functools.partial(timing.measure, clock=device.clock))
    return device


@pytest.fixture
def compiler():
    return DeviceCompiler()


def auto(bundle, compiler):
    return build_auto(bundle.path, compiler, Request(), shown=False)


def table(made):
    return {(row.candidate.graph, row.candidate.precision): row for row in made.rows}


def chosen(made):
    return {row.candidate.graph: row.candidate.precision for row in made.rows if row.chosen}


def test_each_graph_gets_its_own_precision(blocky, device, compiler):
    device.seconds = {("sam", "int8"): 0.25, ("sam", "fp16"): 0.5, ("head", "fp16"): 0.5, ("clip_trunk", "int8"): 1.03}
    made = auto(blocky(), compiler)
    assert chosen(made) == {"sam": "int8", "clip_trunk": "fp32", "head": "fp16", "clip_tail": "fp32", "score": "fp32"}
    rows = table(made)
    assert rows["sam", "int8"].reason == "taken: 4.00x (4.00 to 4.00) of fp32"
    assert rows["sam", "fp16"].reason == "fp16 0.50x of int8: slower"
    assert rows["clip_trunk", "int8"].reason == "int8 0.97x of fp32: does not pay"
    assert rows["head", "int8"].reason == "the same graph as fp16"
    assert rows["sam", "fp16"].median_ms == 500


def test_the_choice_is_what_runs_from_then_on(blocky, device, compiler, capsys):
    bundle = blocky()
    device.seconds = {("sam", "int8"): 0.25, ("head", "fp16"): 0.5}
    made = auto(bundle, compiler)
    device.opened.clear()
    assert main(["verify", str(bundle.path)]) == 0
    assert set(device.opened) == {*chosen(made).items(), ("text", "fp32")}
    assert "tensorrt auto sm87-trt10.3.0" in capsys.readouterr().out


def test_a_graph_that_fails_is_not_taken_however_fast(blocky, device, compiler):
    bundle = blocky()
    typed = bundle.graph("sam", "int8", blocks.CANVAS)
    model = onnx.load(bundle.graph_files(typed), load_external_data=False)
    blocks.poison(1)(model)
    with bundle.edit() as edit:
        edit.stage(typed.file).write_bytes(model.SerializeToString())
    device.seconds = {("sam", "int8"): 0.01, ("clip_trunk", "int8"): 0.5}
    made = auto(bundle, compiler)
    assert chosen(made)["sam"] == "fp32"
    assert table(made)["sam", "int8"].reason.startswith("fails: sam_1 of sam at 32x32: cosine 0.9")
    assert [(chain.precision, chain.passes) for chain in made.chains] == [
        ("fp32", True), ("fp16", True), ("int8", False)
    ]  # fmt: skip


def test_graph_whose_own_chain_fails_is_taken_if_it_passes_and_the_rest_of_that_chain_is_deleted(
    blocky, device, compiler
):
    bundle = blocky()
    typed = bundle.graph("clip_tail", "int8", blocks.CANVAS)
    model = onnx.load(bundle.graph_files(typed), load_external_data=False)
    next(node for node in model.graph.node if "embedding_b" in node.output).output[0] = "right"
    model.graph.node.append(helper.make_node("Neg", ["right"], ["embedding_b"], "/wrong"))
    with bundle.edit() as edit:
        edit.stage(typed.file).write_bytes(model.SerializeToString())
    device.seconds = {("sam", "int8"): 0.25}
    made = auto(bundle, compiler)
    assert chosen(made)["sam"] == "int8"
    left = Bundle.open(bundle.path)
    left.verify()
    assert [path.name for path in bundle.path.rglob("int8/*.engine")] == ["sam-32x32.engine"]
    edgeseg.open(bundle.path).close()
    with pytest.raises(BundleError, match="failed their gate"):
        edgeseg.open(bundle.path, precision="int8")


def test_picks_that_fail_together_step_back(blocky, device, compiler, monkeypatch):
    from edgeseg.engines import auto as module

    check_plan = module.check_plan

    def strict(bundle, plan, canvases, shown):
        report = check_plan(bundle, plan, canvases, shown)
        if plan.precisions["sam"] == "int8":
            return edgeseg_report(report)
        return report

    def edgeseg_report(report):
        return type(report)(Limits(report.limits.cosine, 1.1), report.tensors, report.labels)

    monkeypatch.setattr(module, "check_plan", strict)
    device.seconds = {("sam", "int8"): 0.25, ("sam", "fp16"): 0.5}
    made = auto(blocky(), compiler)
    assert chosen(made)["sam"] == "fp16"
    reason = table(made)["sam", "int8"].reason
    assert reason.startswith("passes alone, but not with the other graphs: labels at 32x32: 100.00% equal")


def test_engines_whose_graph_is_the_same_are_compiled_once(blocky, device, compiler):
    bundle = blocky()
    made = auto(bundle, compiler)
    assert compiler.compiled.count(("score", "fp32")) == 1
    assert {name for name, precision in compiler.compiled if precision == "int8"} == {"sam", "clip_trunk", "clip_tail"}
    shared = {(item.engine.graph, item.engine.precision) for item in made.built if item.shared}
    assert {("head", "int8"), ("score", "fp16"), ("text", "int8")} <= shared


def test_report_holds_every_measurement(blocky, device, compiler):
    bundle = blocky()
    auto(bundle, compiler)
    body = json.loads((bundle.path / f"reports/auto-tensorrt-{KEY}.json").read_text())
    assert [(row["graph"], row["precision"]) for row in body["graphs"]] == [
        (name, precision) for name in CHAIN for precision in ("fp32", "fp16", "int8")
    ]
    assert all(row["rounds_ms"] for row in body["graphs"] if not row["same_as"])
    assert body["environment"]["packages"]


def test_precision_that_the_compiler_refuses_is_left_out(blocky, device, compiler):
    compiler.refused = {"int8"}
    made = auto(blocky(), compiler)
    assert [(c.precision, c.found) for c in made.chains if not c.passes] == [
        ("int8", "not built: the device has no such arithmetic")
    ]
    assert "int8" not in {row.candidate.precision for row in made.rows}


def test_precision_that_does_not_run_is_left_out(blocky, device, compiler, monkeypatch):
    opened = device.open

    def out_of_memory(engine, graph, index=0):
        if graph.precision == "fp16":
            raise BackendError("open an engine", "out of memory", "use less")
        return opened(engine, graph, index)

    monkeypatch.setattr(device, "open", out_of_memory)
    made = auto(blocky(), compiler)
    assert [(c.precision, c.found) for c in made.chains if not c.passes] == [("fp16", "does not run: out of memory")]
    assert {item.engine.precision for item in made.built} == {"fp32", "int8"}


def test_an_engine_in_another_precision_than_asked_may_be_taken_and_names_the_report(blocky, device, compiler):
    bundle = blocky()
    graph = bundle.graph("sam", "int8", blocks.CANVAS)
    found = products(onnx.load(bundle.graph_files(graph), load_external_data=False))
    name = next(name for name, product in found.items() if product.asked == "int8")
    compiler.layers = {("sam", "int8"): [Layer(name, "gemm", ("Half",), weights=("Half",), nodes=(name,))]}
    device.seconds = {("sam", "int8"): 0.25}
    made = auto(bundle, compiler)
    assert chosen(made)["sam"] == "int8"
    sam = next(e for e in Bundle.open(bundle.path).manifest.engines if (e.graph, e.precision) == ("sam", "int8"))
    assert sam.report == made.selection.report
    assert table(made)["sam", "int8"].candidate.differences[0].startswith("asked int8, got fp16 in 1 of 18 GEMMs")


def test_the_choice_is_void_once_an_engine_was_built_again(blocky, device, compiler):
    bundle = blocky()
    device.seconds = {("sam", "int8"): 0.25}
    auto(bundle, compiler)
    engine = next(path for path in bundle.path.rglob("int8/sam-*.engine"))
    with bundle.edit() as edit:
        edit.stage(engine.relative_to(bundle.path).as_posix()).write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"chose for sm87-trt10\.3\.0 was built again since"):
        edgeseg.open(bundle.path, precision="auto")
    with edgeseg.open(bundle.path) as segmenter:
        assert segmenter.plan.precision == "fp16"
        assert "built again since" in segmenter.plan.notes[0]


def test_building_one_precision_again_leaves_the_choice_alone(blocky, device, compiler):
    bundle = blocky()
    device.seconds = {("sam", "int8"): 0.25}
    auto(bundle, compiler)
    build(bundle.path, compiler, Request("fp16"), shown=False)
    with edgeseg.open(bundle.path) as segmenter:
        assert segmenter.plan.precision == "auto"


def test_second_auto_takes_the_place_of_the_first(blocky, device, compiler):
    bundle = blocky()
    device.seconds = {("sam", "int8"): 0.25}
    auto(bundle, compiler)
    device.seconds = {}
    auto(bundle, compiler)
    (selection,) = Bundle.open(bundle.path).manifest.selections
    assert selection.precisions["sam"] == "fp32"


def test_no_choice_among_chains_that_all_fail(blocky, device, compiler):
    bundle = blocky()
    with bundle.edit() as edit:
        stored = bundle.reference("32x32")[0]
        stored["tensor:sam_1"] = -stored["tensor:sam_1"]
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(GateError, match="no precision gives the reference results; sam_1 of sam at 32x32"):
        auto(bundle, compiler)
    assert list(bundle.path.rglob("*.engine")) == []
    assert Bundle.open(bundle.path).manifest.selections == ()


def test_what_cannot_run_here_cannot_be_timed(blocky):
    with pytest.raises(BuildError, match="do not run on this machine"):
        auto(blocky(), DeviceCompiler(runs_here=False))


def test_auto_without_a_choice_names_the_command(blocky):
    bundle = blocky()
    with pytest.raises(BundleError, match=r"chose nothing for cpu-.*edgeseg build .* --precision auto"):
        edgeseg.open(bundle.path, backend="onnxruntime", precision="auto")


def test_onnxruntime_is_timed_for_real_and_the_verb_prints_the_table(blocky, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bundle = blocky()
    assert main(["build", str(bundle.path), "--backend", "onnxruntime", "--precision", "auto"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("whole chain in", "fp16 passed", "median ms", "the same graph as fp32", "together: cosine"):
        assert text in shown
    with edgeseg.open(bundle.path) as segmenter:
        assert segmenter.plan.precision == "auto"


def test_verb_gives_the_table_as_json(blocky, capsys):
    bundle = blocky()
    words = ["build", str(bundle.path), "--backend", "onnxruntime", "--precision", "auto", "--json"]
    assert main(words) == 0
    body = json.loads(capsys.readouterr().out)
    assert {"engines", "chains", "graphs", "selection"} <= set(body)
    assert body["selection"]["gate"]["passed"] is True


def test_auto_and_repair_exclude_each_other(blocky, capsys):
    assert main(["build", str(blocky().path), "--precision", "auto", "--repair"]) == 3
