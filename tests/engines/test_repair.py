"""A failing graph is changed step by step until it passes, and the bundle says how."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import edgeseg
import edgeseg.reference
from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.engines import repair as module
from edgeseg.engines.builder import build
from edgeseg.engines.request import Request
from edgeseg.errors import BuildError, GateError
from edgeseg.schema import size_text
from tests.engines import blocks
from tests.engines.fake_device import DeviceCompiler
from tests.tiny_bundle import WIDTH

pytestmark = pytest.mark.onnx

CANVASES = (blocks.CANVAS, (32, 48))


def repaired(bundle, compiler, precision):
    return build(bundle.path, compiler, Request(precision, repair=True), shown=False)


def report(bundle, precision, place="onnxruntime-cpu"):
    (path,) = (bundle.path / "reports").glob(f"repair-{place}*-{precision}.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("block", range(blocks.BLOCKS))
def test_the_block_that_is_broken_is_found_and_lifted_alone(blocky, cpu, precision, block):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", precision, blocks.poison(block))
    built = repaired(bundle, cpu, precision)
    sam = next(item.engine for item in built if item.engine.graph == "sam")
    body = report(bundle, precision)
    assert body["kept"] == {"sam": f"1 of 4 blocks in fp32: /blocks.{block}"}
    assert body["blocks"]["sam"][0]["block"] == f"/blocks.{block}"
    assert sam.gate.passed
    assert sam.report == f"reports/repair-onnxruntime-{sam.device}-{precision}.json"
    Bundle.open(bundle.path).verify()


def test_every_rung_that_was_tried_is_in_the_report_in_order(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    repaired(bundle, cpu, "int8")
    assert [(one["change"], one["outcome"]) for one in report(bundle, "int8")["tried"]] == [
        ("attention that is not fused", module.FAILS),
        ("normalisation in fp32", module.NOTHING),  # the plain form is fp32 around its integer products
        ("1 of 4 blocks in fp32: /blocks.1", module.PASSES),
    ]


def test_repaired_engine_runs_and_is_up_to_date_afterwards(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    repaired(bundle, cpu, "int8")
    again = build(bundle.path, cpu, Request("int8"), shown=False)
    assert all(item.kept for item in again)
    with edgeseg.open(bundle.path, backend="onnxruntime", precision="int8") as segmenter:
        assert segmenter.plan.engines["sam", blocks.CANVAS].report


def test_graph_of_the_bundle_and_other_precisions_stay_as_they_are(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    before = dict(bundle.manifest.files)
    repaired(bundle, cpu, "int8")
    after = Bundle.open(bundle.path).manifest.files
    assert before.items() <= after.items()


def test_two_blocks_that_are_broken_are_both_lifted(blocky, cpu):
    bundle = blocky()
    for block in (0, 2):
        blocks.rewrite(bundle, "sam", "fp16", blocks.poison(block))
    repaired(bundle, cpu, "fp16")
    (change,) = report(bundle, "fp16")["kept"].values()
    assert change.startswith("2 of 4 blocks in fp32: ")
    assert {"/blocks.0", "/blocks.2"} == set(change.partition(": ")[2].split(", "))


def test_what_lies_outside_all_blocks_is_repaired_by_the_whole_graph(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.doubled)
    repaired(bundle, cpu, "int8")
    assert report(bundle, "int8")["kept"] == {"sam": "the whole graph in fp32"}


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_as_few_blocks_are_lifted_as_pass(blocky, cpu, monkeypatch, needed):
    bundle = blocky()
    for block in range(needed):
        blocks.rewrite(bundle, "sam", "fp16", blocks.poison(block))
    built = repaired(bundle, cpu, "fp16")
    (change,) = report(bundle, "fp16")["kept"].values()
    assert change.startswith(f"{needed} of 4 blocks in fp32: ")
    assert all(item.engine.gate.passed for item in built)


def crooked_stem(model):
    """Each channel of what the blocks begin with has another wrong scale."""
    node = next(node for node in model.graph.node if node.op_type == "Mul" and "blocks" not in node.name)
    node.input[1] = blocks.constant(model, "crooked", np.linspace(0.7, 1.3, WIDTH).astype(np.float16))


def test_what_goes_into_all_blocks_is_lifted_alone_where_it_is_wrong(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "fp16", crooked_stem)
    repaired(bundle, cpu, "fp16")
    assert report(bundle, "fp16")["kept"] == {"sam": "1 of 4 blocks in fp32: (stem)"}


def unnumbered(model):
    """Without a block that could be told from the others."""
    for node in model.graph.node:
        node.name = node.name.replace("/blocks.", "/part-")


def test_graph_without_blocks_is_repaired_whole(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "fp32", unnumbered)
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    blocks.rewrite(bundle, "sam", "int8", unnumbered)
    repaired(bundle, cpu, "int8")
    assert report(bundle, "int8")["kept"] == {"sam": "the whole graph in fp32"}


def test_what_is_wrong_with_the_input_of_a_graph_is_repaired_where_it_is_made(blocky, cpu, monkeypatch):
    def unseen(bundle, key):
        """Torch's tensors, but for those that the broken graph gives: so the one after it has the first bad tensor."""
        return [{k: v for k, v in case.items() if not k.startswith("tensor:sam_")} for case in read(bundle, key)]

    read = edgeseg.reference.references
    monkeypatch.setattr("edgeseg.reference.references", unseen)
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    built = repaired(bundle, cpu, "int8")
    assert report(bundle, "int8")["kept"] == {"sam": "1 of 4 blocks in fp32: /blocks.1"}
    tried = [one["graph"] for one in report(bundle, "int8")["tried"]]
    assert tried[0] == "head"
    assert [item.engine.graph for item in built if item.engine.report] == ["sam"]


@pytest.fixture(scope="module")
def wide_template(tmp_path_factory):
    return blocks.make(tmp_path_factory.mktemp("wide") / "a.bundle", "fp16", canvases=CANVASES).path


@pytest.fixture
def wide(wide_template, tmp_path):
    """A bundle of two canvases in fp32 and fp16."""
    return Bundle.open(shutil.copytree(wide_template, tmp_path / "a.bundle"))


def test_blocks_are_lifted_on_every_canvas(wide, cpu):
    for canvas in CANVASES:
        blocks.rewrite(wide, "sam", "fp16", blocks.poison(1), canvas)
    built = repaired(wide, cpu, "fp16")
    assert report(wide, "fp16")["kept"] == {"sam": "1 of 4 blocks in fp32: /blocks.1"}
    assert all(item.engine.gate.passed for item in built)
    assert len([item for item in built if item.engine.report]) == 2


def test_repairs_of_different_canvases_at_once_keep_a_report_each(wide, cpu):
    for index, canvas in enumerate(CANVASES):
        blocks.rewrite(wide, "sam", "fp16", blocks.poison(index), canvas)

    def one(canvas):
        return build(wide.path, cpu, Request("fp16", (canvas,), repair=True), shown=False)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, CANVASES))
    bundle = Bundle.open(wide.path)
    bundle.verify()
    reports = {e.canvas: json.loads(bundle.file(e.report).read_text()) for e in bundle.manifest.engines if e.report}
    assert reports.keys() == set(CANVASES)
    for index, canvas in enumerate(CANVASES):
        assert reports[canvas]["kept"] == {"sam": f"1 of 4 blocks in fp32: /blocks.{index}"}
        assert {row["canvas"] for row in reports[canvas]["tried"]} == {size_text(canvas)}


def test_compiled_engines_are_repaired_too_and_a_change_that_is_refused_is_written_down(blocky, device, monkeypatch):
    bundle, compiler = blocky(), DeviceCompiler()
    compiler.bf16 = True  # onnxruntime, which stands in for the device, does not compute it
    compile_graph = compiler.compile

    def refusing(job, advance):
        if b"_bf16" in job.source.read_bytes():
            raise BuildError("compile sam", "no bfloat16 here", "use another")
        return compile_graph(job, advance)

    monkeypatch.setattr(compiler, "compile", refusing)
    monkeypatch.setattr("edgeseg.engines.surgery.SMALL_BYTES", 0)  # so that every weight has its Cast
    blocks.rewrite(bundle, "sam", "fp16", blocks.poison(2))
    repaired(bundle, compiler, "fp16")
    body = report(bundle, "fp16", "tensorrt")
    assert body["kept"] == {"sam": "1 of 4 blocks in fp32: /blocks.2"}
    assert ("bf16", module.REFUSED) in [(one["change"], one["outcome"]) for one in body["tried"]]


def test_what_nothing_repairs_fails_with_the_report_and_keeps_nothing_else(blocky, cpu):
    bundle = blocky()
    with bundle.edit() as edit:
        stored = bundle.reference("32x32")[0]
        stored["tensor:sam_1"] = np.roll(stored["tensor:sam_1"], 1)
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(GateError, match=r"sam_1 of sam at 32x32.*none repairs it, see reports/repair-"):
        repaired(bundle, cpu, "fp16")
    assert {one["outcome"] for one in report(bundle, "fp16")["tried"]} == {module.FAILS}
    assert all(e.gate and not e.gate.passed for e in Bundle.open(bundle.path).manifest.engines)
    assert list(bundle.path.rglob("*-repair.onnx")) == []
    Bundle.open(bundle.path).verify()


def test_without_the_fp32_graphs_no_block_is_lifted(blocky, cpu):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    with bundle.edit() as edit:
        edit.remove_graphs(lambda graph: (graph.name, graph.precision) == ("sam", "fp32"))
    with pytest.raises(GateError):
        repaired(bundle, cpu, "int8")
    assert len(report(bundle, "int8")["tried"]) == 2


def test_interrupted_repair_leaves_an_engine_that_counts_for_nothing(blocky, cpu, monkeypatch):
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    check, checked = module._Repair._check, []

    def interrupted(self, canvases):
        checked.append(canvases)
        if len(checked) == 2:  # of the rung that would pass
            raise KeyboardInterrupt
        return check(self, canvases)

    with monkeypatch.context() as patch:
        patch.setattr(module._Repair, "_check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            repaired(bundle, cpu, "int8")
    Bundle.open(bundle.path).verify()
    with pytest.raises(GateError):
        build(bundle.path, cpu, Request("int8"), shown=False)
    assert next(e for e in Bundle.open(bundle.path).manifest.engines if e.graph == "sam").report is None


def test_verb_prints_the_rungs(blocky, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bundle = blocky()
    blocks.rewrite(bundle, "sam", "int8", blocks.poison(1))
    words = ["build", str(bundle.path), "--backend", "onnxruntime", "--precision", "int8", "--repair"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for text in ("attention that is not fused", "nothing to change", "/blocks.1  passes", "12 gemm fp32, 12 gemm int8"):
        assert text in shown
