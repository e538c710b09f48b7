import json
from dataclasses import replace

import click.testing
import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.calibration.quantize import quantize_bundle
from edgeseg.engines.builder import build
from edgeseg.engines.choice import choose
from edgeseg.engines.cli import build as verb
from edgeseg.engines.request import Request
from edgeseg.errors import BuildError, BundleError, GateError
from tests.tiny_bundle import make_bundle

pytestmark = [pytest.mark.onnx]
ON_CPU = Request()


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "toy.bundle")


@pytest.fixture
def sm89():
    pytest.importorskip("tensorrt_rtx")
    return choose(None, ("sm89",))


def make(bundle, compiler, request=ON_CPU):
    return build(bundle.path, compiler, request, shown=False)


def test_onnxruntime_runs_the_graphs_or_their_cpu_form_over_the_same_weights_and_gates_them(bundle, cpu, monkeypatch):
    monkeypatch.setattr("edgeseg.engines.cpu_form.LEAST_TOKENS", 1)
    built = make(bundle, cpu)
    engines = Bundle.open(bundle.path).manifest.engines
    assert len(engines) == len(bundle.manifest.graphs)
    weights = {graph.file: graph.data for graph in bundle.manifest.graphs}
    assert all(engine.data == weights[engine.file.replace(".cpu.onnx", ".onnx")] for engine in engines)
    assert {engine.graph for engine in engines if engine.file.endswith(".cpu.onnx")} == {"sam", "clip_trunk"}
    assert all(engine.gate and engine.gate.passed and engine.gate.cosine > 0.9999 for engine in engines)
    assert sorted(e.graph for e in engines) == sorted(item.engine.graph for item in built)
    Bundle.open(bundle.path).verify()


def test_second_build_keeps_what_is_there(bundle, cpu):
    make(bundle, cpu)
    before = Bundle.open(bundle.path).manifest
    assert all(item.kept for item in make(bundle, cpu))
    assert Bundle.open(bundle.path).manifest == before


@pytest.mark.tensorrt
def test_engine_for_another_machine_is_compiled_and_stays_ungated(bundle, sm89):
    built = make(bundle, sm89, Request(canvases=((32, 32),)))
    assert {item.engine.canvas for item in built} == {(32, 32), None}
    assert {item.engine.device for item in built} == {"sm89-rtx1.7.1"}
    bundle = Bundle.open(bundle.path)
    bundle.verify()
    for item in built:
        assert bundle.graph_files(item.engine).stat().st_size == item.size_bytes
        assert item.engine.source_sha256 == bundle.manifest.files[graph_file(bundle, item.engine)].sha256
        assert item.engine.gate is None


def graph_file(bundle, engine):
    return bundle.graph(engine.graph, engine.precision, engine.canvas).file


@pytest.mark.tensorrt
def test_fp16_is_the_default_on_a_gpu_and_its_attentions_are_fused(bundle, sm89):
    quantize_bundle(bundle, lambda _done, _total: None)
    built = make(bundle, sm89, Request(canvases=((32, 48),)))
    fused = {item.engine.graph: item.layers["fused_attentions"] for item in built}
    assert {item.engine.precision for item in built} == {"fp16"}
    assert fused == {"sam": 1, "clip_trunk": 1, "head": 0, "clip_tail": 0, "score": 0, "text": 0}


@pytest.mark.tensorrt
def test_engine_of_a_changed_graph_is_built_again(bundle, sm89):
    make(bundle, sm89)
    with bundle.edit() as edit:
        engine = next(e for e in edit.manifest.engines if (e.graph, e.canvas) == ("head", (32, 32)))
        edit.add_engine(replace(engine, source_sha256="0" * 64))
    again = [item.engine.graph for item in make(bundle, sm89) if not item.kept]
    assert again == ["head"]


@pytest.mark.tensorrt
def test_failure_keeps_the_engines_made_before_and_nothing_else(bundle, sm89, monkeypatch):
    compile_graph = sm89.compile

    def fail(job, advance):
        if job.spec.name == "head":
            job.target.write_bytes(b"half an engine")
            raise KeyboardInterrupt
        return compile_graph(job, advance)

    monkeypatch.setattr(sm89, "compile", fail)
    with pytest.raises(KeyboardInterrupt):
        make(bundle, sm89)
    found = Bundle.open(bundle.path)
    found.verify()
    assert {engine.graph for engine in found.manifest.engines} == {"sam", "clip_trunk"}


def test_failed_gate_names_the_graph_and_its_engine_is_built_again(bundle, cpu):
    with bundle.edit() as edit:
        stored = bundle.reference("32x32")[0]
        stored["tensor:embedding_b"] = np.roll(stored["tensor:embedding_b"], 1)
        np.savez(edit.stage("reference/32x32-0.npz"), **stored)
    with pytest.raises(GateError, match="embedding_b of clip_tail at 32x32"):
        make(bundle, cpu)
    gates = {(e.graph, e.canvas): e.gate and e.gate.passed for e in Bundle.open(bundle.path).manifest.engines}
    assert [key for key, passed in gates.items() if not passed] == [("clip_tail", (32, 32))]
    with pytest.raises(GateError):
        make(bundle, cpu)


def test_bundle_without_reference_tensors_cannot_be_gated(bundle, cpu):
    with bundle.edit() as edit:
        edit.update(reference={})
    with pytest.raises(BundleError, match="reference tensors"):
        make(bundle, cpu)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(precision="fp16"), "edgeseg quantize .* --precision fp16"),
        (Request(canvases=((64, 64),)), "no canvas 64x64, only 32x32, 32x48"),
        (Request(memory_limit_bytes=1), "leave the option out"),
    ],
)
def test_what_cannot_be_built_is_said(bundle, cpu, request_, message):
    with pytest.raises(BuildError, match=message):
        make(bundle, cpu, request_)


@pytest.mark.tensorrt
def test_verb_reports_engines_as_json(bundle):
    pytest.importorskip("tensorrt_rtx")
    words = [str(bundle.path), "--target", "sm86,sm89", "--canvas", "32x32", "--memory-limit", "1GiB", "--json"]
    body = json.loads(click.testing.CliRunner().invoke(verb, words, catch_exceptions=False).stdout)
    assert (body["command"], body["backend"], body["device"]) == ("build", "tensorrt_rtx", "sm86+sm89-rtx1.7.1")
    assert {item["engine"]["graph"] for item in body["engines"]} == {graph.name for graph in bundle.manifest.graphs}
    assert all(item["layers"]["layers"] > 0 for item in body["engines"])


def test_verb_says_when_engines_were_up_to_date(bundle):
    words = [str(bundle.path), "--backend", "onnxruntime"]
    runner = click.testing.CliRunner()
    assert "the graph itself" in runner.invoke(verb, words, catch_exceptions=False).stdout
    assert "was up to date" in runner.invoke(verb, words, catch_exceptions=False).stdout
