from dataclasses import replace

import pytest

from edgeseg.backends import BACKENDS
from edgeseg.backends.base import Probe
from edgeseg.backends.fake import FakeBackend
from edgeseg.errors import BackendError, BundleError
from edgeseg.schema import EngineSpec, Gate, Selection
from edgeseg.selection import AUTO, Request, choose
from tests.edgeseg.tiny_bundle import CANVASES, CHAIN


class Gpu(FakeBackend):
    """A backend that needs engines."""

    name = "tensorrt"
    device = "sm87-trt10.3.0"

    def probe(self, device: int = 0) -> Probe:
        return Probe(True, self.device, "a test")


def engine(bundle, graph, **changes) -> EngineSpec:
    digest = bundle.manifest.files[graph.file].sha256
    made = EngineSpec("tensorrt", Gpu.device, graph.name, "fp32", graph.canvas, "", (), digest)
    made = replace(made, gate=Gate(True, 1.0), **changes)
    place = f"engines/{made.backend}-{made.device}/fp32/{graph.name}-{len(str(graph.canvas))}{graph.canvas}.engine"
    return replace(made, file=place.replace("(", "").replace(")", "").replace(", ", "x"))


def add_engines(bundle, only=lambda graph: True, **changes):
    with bundle.edit() as edit:
        for graph in filter(only, bundle.manifest.graphs):
            spec = engine(bundle, graph, **changes)
            edit.stage(spec.file).write_bytes(b"engine")
            edit.add_engine(spec)
    return bundle


def test_fake_backend_runs_every_canvas_from_the_graphs(fake_bundle):
    plan = choose(fake_bundle, CHAIN, Request("fake"))
    assert (plan.precision, plan.device_key, plan.canvases, plan.engines) == ("fp32", "fake", CANVASES, {})


def test_engines_of_this_device_are_taken(fake_bundle):
    plan = choose(add_engines(fake_bundle), CHAIN, Request(Gpu()))
    assert plan.canvases == CANVASES
    assert len(plan.engines) == 9
    assert plan.ungated() == []


def test_canvas_without_all_its_engines_is_left_out(fake_bundle):
    add_engines(fake_bundle, lambda graph: (graph.name, graph.canvas) != ("head", CANVASES[1]))
    assert choose(fake_bundle, CHAIN, Request(Gpu())).canvases == CANVASES[:1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"device": "sm89-trt10.3.0"}, "were built for sm89-trt10.3.0 and this machine is sm87-trt10.3.0"),
        ({"source_sha256": "0" * 64}, "other graphs"),
        ({"gate": Gate(False, 0.3)}, "failed their gate"),
        ({"backend": "tensorrt_rtx"}, "holds no fp32 engine for tensorrt"),
    ],
)
def test_unusable_engines_give_the_exact_build_command(fake_bundle, changes, word):
    gate = changes.pop("gate", None)
    add_engines(fake_bundle, **changes)
    if gate:
        with fake_bundle.edit() as edit:
            for spec in fake_bundle.manifest.engines:
                edit.add_engine(replace(spec, gate=gate))
    with pytest.raises(BundleError, match=word) as raised:
        choose(fake_bundle, CHAIN, Request(Gpu()))
    assert raised.value.todo.endswith(f"edgeseg build {fake_bundle.path} --backend tensorrt")


def test_asked_precision_is_in_the_build_command(fake_bundle):
    with pytest.raises(BundleError, match="--backend tensorrt --precision fp32"):
        choose(fake_bundle, CHAIN, Request(Gpu(), "fp32"))


def test_precision_that_the_bundle_lacks_names_the_quantize_command(fake_bundle):
    with pytest.raises(BundleError, match=r"edgeseg quantize .* --precision fp16"):
        choose(fake_bundle, CHAIN, Request("fake", "fp16"))


def test_backend_that_does_not_work_is_a_backend_error(fake_bundle):
    with pytest.raises(BackendError, match=r"it was told not to work.*edgeseg doctor"):
        choose(fake_bundle, CHAIN, Request(FakeBackend(works=False)))


def test_ungated_engines_are_named(fake_bundle):
    add_engines(fake_bundle)
    with fake_bundle.edit() as edit:
        edit.add_engine(replace(fake_bundle.manifest.engines[0], gate=None))
    assert [e.graph for e in choose(fake_bundle, CHAIN, Request(Gpu())).ungated()] == ["sam"]


def test_fallback_to_the_cpu_is_noted(fake_bundle, monkeypatch):
    class Other(Gpu):
        device = "sm90-trt10.3.0"

    class Cpu(FakeBackend):
        name = "onnxruntime"

    kinds = {"tensorrt": Other(), "onnxruntime": Cpu()}
    monkeypatch.setattr("edgeseg.selection.get_backend", lambda name, threads=None: kinds[name])
    plan = choose(add_engines(fake_bundle), CHAIN, Request())
    assert plan.backend.name == "onnxruntime"
    assert "this machine is sm90-trt10.3.0" in plan.notes[0]
    assert list(BACKENDS).index("tensorrt") < list(BACKENDS).index("onnxruntime")


def test_engine_for_several_devices_is_taken_on_each_of_them(fake_bundle):
    add_engines(fake_bundle, device="sm86+sm87-trt10.3.0")
    assert len(choose(fake_bundle, CHAIN, Request(Gpu())).engines) == 9


def test_graph_whose_engine_failed_its_gate_does_not_run_in_its_place(fake_bundle):
    add_engines(fake_bundle, backend="fake", device="fake")
    with fake_bundle.edit() as edit:
        edit.add_engine(replace(fake_bundle.manifest.engines[0], gate=Gate(False, 0.3)))
    assert choose(fake_bundle, CHAIN, Request("fake")).canvases == CANVASES[1:]


def select(bundle, graphs=CHAIN, canvases=CANVASES, **changes):
    """Selects the fp32 engines of a device, whatever their own gates say."""
    digests = {e.file: bundle.manifest.files[e.file].sha256 for e in bundle.manifest.engines}
    chosen = Selection(
        "tensorrt", Gpu.device, dict.fromkeys(graphs, "fp32"), canvases, Gate(True, 1.0), digests, "r.json"
    )
    with bundle.edit() as edit:
        edit.stage("r.json").write_text("{}")
        edit.update(selections=(replace(chosen, **changes),))


@pytest.mark.parametrize("precision", [None, AUTO])
def test_what_auto_selected_is_taken_first_for_its_canvases(fake_bundle, precision):
    select(add_engines(fake_bundle), canvases=CANVASES[:1])
    plan = choose(fake_bundle, CHAIN, Request(Gpu(), precision))
    assert (plan.precision, plan.canvases) == (AUTO, CANVASES[:1])
    assert plan.precision_of("head") == "fp32"
    assert plan.all_precisions() == ("fp32",)
    assert {graph for graph, _ in plan.engines} == set(CHAIN)


def test_selected_engine_counts_whatever_its_own_chain_gave(fake_bundle):
    add_engines(fake_bundle)
    with fake_bundle.edit() as edit:
        for number, spec in enumerate(fake_bundle.manifest.engines):
            edit.add_engine(replace(spec, gate=Gate(False, 0.3) if number % 2 else None))
    select(fake_bundle)
    plan = choose(fake_bundle, CHAIN, Request(Gpu()))
    assert (plan.precision, plan.ungated()) == (AUTO, [])


def test_another_precision_that_is_asked_for_is_not_the_selection(fake_bundle):
    select(add_engines(fake_bundle))
    assert choose(fake_bundle, CHAIN, Request(Gpu(), "fp32")).precision == "fp32"


@pytest.mark.parametrize(
    "changes",
    [
        {"engines": {}},
        {"precisions": dict.fromkeys(CHAIN, "fp16")},
        {"precisions": {"sam": "fp32"}},
    ],
)
def test_selection_whose_engines_are_not_there_is_void_and_says_so(fake_bundle, changes):
    select(add_engines(fake_bundle), **changes)
    plan = choose(fake_bundle, CHAIN, Request(Gpu()))
    assert plan.precision == "fp32"
    assert "was built again since" in plan.notes[0]
    with pytest.raises(BundleError, match=r"edgeseg build .* --backend tensorrt --precision auto"):
        choose(fake_bundle, CHAIN, Request(Gpu(), AUTO))


def test_selection_of_another_device_is_not_taken(fake_bundle):
    select(add_engines(fake_bundle), device="sm89-trt10.3.0")
    plan = choose(fake_bundle, CHAIN, Request(Gpu()))
    assert (plan.precision, plan.notes) == ("fp32", ())


def test_selection_made_from_other_graphs_is_void(fake_bundle):
    select(add_engines(fake_bundle))
    graph = fake_bundle.graph("head", "fp32", CANVASES[0])
    with fake_bundle.edit() as edit:
        edit.stage(graph.file).write_text("another graph")
    assert choose(fake_bundle, CHAIN, Request(Gpu())).canvases == CANVASES[1:]


def test_engine_of_the_plain_form_is_one_of_the_graph(fake_bundle):
    """TensorRT 8.6 makes its int8 engines from the plain form, and the plan asks for the typed one."""
    add_engines(fake_bundle)
    graph = fake_bundle.graph("head", "fp32", CANVASES[0])
    plain = replace(graph, form="plain", file=graph.file.replace(".onnx", ".plain.onnx"))
    with fake_bundle.edit() as edit:
        edit.stage(plain.file).write_text("the plain form")
        edit.add_graph(plain)
        digest = edit.digest(plain.file).sha256
        made = next(e for e in edit.manifest.engines if (e.graph, e.canvas) == ("head", CANVASES[0]))
        edit.add_engine(replace(made, source_sha256=digest))
    assert choose(fake_bundle, CHAIN, Request(Gpu())).canvases == CANVASES
