import time

import numpy as np
import pytest

from edgeseg.backends import cuda, tensorrt
from edgeseg.backends.cuda.fake import FakeCuda
from edgeseg.backends.host import HostStream
from edgeseg.benches.latency.spans import DEVICE_CLOCK, HOST_CLOCK, Spans
from edgeseg.chain import Chain, Link
from edgeseg.schema import GraphSpec, TensorSpec
from tests.edgeseg.backends import trt_stub


def test_graph_on_a_device_is_timed_by_its_events():
    cuda, spans = FakeCuda(), Spans()
    with cuda.current():
        stream = cuda.stream()
    with spans.step("upload", None):
        pass
    with spans.step("sam", stream):
        time.sleep(0.05)  # what the host does meanwhile does not count
    with spans.step("wait", None):
        stream.synchronize()
    with spans.step("download", None):
        pass
    found = spans.take()
    assert found["sam"] == 1.0  # what every pair of the fake's events says
    assert spans.clocks == {"sam": DEVICE_CLOCK}
    assert list(found) == ["upload", "graphs", "sam", "download"]
    assert found["graphs"] >= 50


def test_graph_on_the_host_is_timed_by_the_host():
    spans = Spans()
    for name, stream, pause_s in (("upload", None, 0.01), ("sam", HostStream(), 0.03), ("download", None, 0.02)):
        with spans.step(name, stream):
            time.sleep(pause_s)
    found = spans.take()
    assert spans.clocks == {"sam": HOST_CLOCK}
    assert found["sam"] >= 30
    assert found["graphs"] >= found["sam"]
    assert found["upload"] >= 10
    assert found["download"] >= 20
    assert spans.drain() == []


def test_failure_inside_a_step_is_not_a_span():
    spans = Spans()
    with pytest.raises(RuntimeError), spans.step("sam", None):
        raise RuntimeError("the engine failed")
    assert spans.drain() == []


@pytest.mark.parametrize("streams", [1, 2])
def test_chain_of_engines_on_a_device_is_observed_from_end_to_end(tmp_path, monkeypatch, streams):
    device = FakeCuda()
    monkeypatch.setattr(cuda, "LAYERS", (lambda index: device,))
    monkeypatch.setattr(tensorrt.TensorRTBackend, "import_sdk", lambda self: trt_stub.module(device))
    backend, path = tensorrt.TensorRTBackend(), tmp_path / "sam.engine"
    path.write_bytes(trt_stub.MAGIC)
    tensors = TensorSpec("x", "float32", (1, "N")), TensorSpec("y", "float32", (1, "N"))
    graph = GraphSpec("sam", "fp16", None, "sam.onnx", (), tensors[:1], tensors[1:], {"N": (1, 4, 8)})
    chain, spans = Chain([Link(graph, backend.open(path, graph))], backend.streams(streams)), Spans()
    result = chain.run({"x": np.ones((1, 4), np.float32)}, ["y"], spans)
    assert np.array_equal(result.tensors["y"], np.full((1, 4), 3, np.float32))
    assert (spans.take()["sam"], spans.clocks) == (1.0, {"sam": DEVICE_CLOCK})


def test_what_is_run_more_than_once_is_summed_and_copies_between_are_no_graphs():
    spans, start_s = Spans(), time.perf_counter()
    for name in ("upload", "vit", "upload", "vit", "score", "download", "score", "download"):
        with spans.step(name, None):
            time.sleep(0.002)
    elapsed_ms = (time.perf_counter() - start_s) * 1e3
    found = spans.take()
    assert list(found) == ["upload", "graphs", "vit", "score", "download"]
    assert all(value >= 3.9 for value in found.values())
    assert found["graphs"] >= found["vit"] + found["score"]
    assert found["upload"] + found["graphs"] + found["download"] <= elapsed_ms
