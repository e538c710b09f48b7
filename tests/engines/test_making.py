"""One engine at a time: made, shared, found again, or made from a graph that was changed."""

import pytest

from edgeseg.bundle import Bundle
from edgeseg.engines.choice import choose
from edgeseg.engines.making import Change, Unchanged, make_engine
from edgeseg.engines.request import Request
from edgeseg.engines.surgery import turn_softmax
from tests.engines import blocks
from tests.engines.fake_device import KEY, DeviceCompiler

pytestmark = pytest.mark.onnx


def make(bundle, compiler, name, precision, change=None):
    graph = bundle.graph(name, precision, blocks.CANVAS, compiler.form)
    return make_engine(bundle.path, compiler, graph, Request(precision), advance=lambda _: None, change=change)


def changing(rewrite=lambda model: 1):
    return Change(rewrite, "reports/why.json", "{}")


def test_engine_of_a_changed_graph_never_takes_the_place_of_one_that_another_precision_uses(blocky):
    """The plain int8 head is the fp32 file, so their engines lie in one folder."""
    bundle, cpu = blocky(), choose("onnxruntime", ())
    exact = make(bundle, cpu, "head", "fp32").engine
    changed = make(bundle, cpu, "head", "int8", changing()).engine
    assert exact.file == "graphs/fp32/head-32x32.onnx"
    assert changed.file == "graphs/fp32/head-32x32.int8-repair.onnx"
    assert changed.data == exact.data
    Bundle.open(bundle.path).verify()


def test_engine_of_a_changed_graph_names_the_report_that_is_kept_with_it(blocky):
    bundle = blocky()
    made = make(bundle, DeviceCompiler(), "sam", "fp16", changing(turn_softmax))
    assert made.engine.report == "reports/why.json"
    assert (bundle.path / "reports/why.json").read_text() == "{}"


def test_change_that_changes_nothing_makes_nothing(blocky):
    bundle = blocky()
    with pytest.raises(Unchanged):
        make(bundle, DeviceCompiler(), "sam", "fp16", changing(lambda model: 0))
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_same_graph_of_another_precision_shares_the_engine_but_not_its_gate(blocky):
    bundle, compiler = blocky(), DeviceCompiler()
    first = make(bundle, compiler, "head", "fp16")
    second = make(bundle, compiler, "head", "int8")
    assert (second.shared, second.engine.gate) == (True, None)
    assert second.engine.file == first.engine.file == f"engines/tensorrt-{KEY}/fp16/head-32x32.engine"
    assert compiler.compiled == [("head", "fp16")]


def test_where_flags_decide_the_same_graph_is_compiled_for_each_precision(blocky):
    bundle, compiler = blocky(), DeviceCompiler()
    compiler.typed = False
    make(bundle, compiler, "head", "fp16")
    assert not make(bundle, compiler, "head", "int8").shared


def test_engine_of_a_change_is_shared_with_nobody(blocky):
    bundle, compiler = blocky(), DeviceCompiler()
    make(bundle, compiler, "head", "fp16", changing())
    assert not make(bundle, compiler, "head", "int8").shared


def test_engine_of_a_change_leaves_the_one_that_another_precision_shares(blocky):
    def marked(model):
        model.doc_string = "changed"
        return 1

    bundle, compiler = blocky(), DeviceCompiler()
    make(bundle, compiler, "head", "fp16")
    shared = make(bundle, compiler, "head", "int8").engine
    before = Bundle.open(bundle.path).manifest.files[shared.file]
    changed = make(bundle, compiler, "head", "fp16", changing(marked)).engine
    assert changed.file == f"engines/tensorrt-{KEY}/fp16/head-32x32-repair.engine"
    assert Bundle.open(bundle.path).manifest.files[shared.file] == before
