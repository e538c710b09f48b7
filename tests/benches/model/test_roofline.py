import numpy as np
import pytest

from edgeseg.backends import tensorrt_rtx
from edgeseg.backends.fake import FakeBackend
from edgeseg.backends.onnxruntime import OnnxRuntimeBackend
from edgeseg.backends.trt_compile import compile_model
from edgeseg.benches.model import probe
from edgeseg.benches.model.roofline import Roofline, fastest_s, host_roofline
from edgeseg.errors import BackendError

ROOF = Roofline(macs_per_s=1e9, bytes_per_s=1e8, dtype="float32", cores=2.0, how="made up")


@pytest.mark.parametrize(
    ("macs", "size_bytes", "expected_ms", "bound"),
    [(2e6, 100, 2.0, "arithmetic"), (2e6, 1e6, 10.0, "memory"), (0, 0, 0.0, "arithmetic")],
)
def test_least_time_is_that_of_the_slower_of_arithmetic_and_memory(macs, size_bytes, expected_ms, bound):
    assert ROOF.least_ms(macs, size_bytes) == expected_ms
    assert ROOF.bound(macs, size_bytes) == bound


def test_fastest_of_several_runs_is_taken_and_the_first_is_not(monkeypatch):
    clock = iter([0, 0.9, 1.0, 1.2, 2.0, 2.1, 3.0, 3.4, 4.0, 4.3])
    monkeypatch.setattr("edgeseg.benches.model.roofline.time.perf_counter", lambda: next(clock))
    ran: list[int] = []
    assert fastest_s(lambda: ran.append(1)) == pytest.approx(0.1)
    assert len(ran) == 6


def test_this_cpu_has_a_roofline(monkeypatch):
    monkeypatch.setattr("edgeseg.benches.model.roofline.LEAST_S", 0.01)
    found = host_roofline(side=128, copy_bytes=2**20)
    assert 1e6 < found.macs_per_s < 1e14
    assert 1e6 < found.bytes_per_s < 1e13
    assert found.cores is not None
    assert found.cores > 0
    assert "128x128" in found.how


@pytest.mark.onnx
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_probes_compute_what_they_claim(tmp_path, dtype):
    made = probe.product(16, dtype)
    path = tmp_path / made.spec.file
    path.write_bytes(made.model)
    session = OnnxRuntimeBackend(1).open(path, made.spec)
    a, b = (np.arange(256, dtype=dtype).reshape(16, 16) / 256 for _ in range(2))
    assert np.allclose(session.download(session.run({"a": a, "b": b})["out"]), a @ b, rtol=1e-2)
    copied = probe.copy(100)
    path.write_bytes(copied.model)
    session, x = OnnxRuntimeBackend(1).open(path, copied.spec), np.arange(100, dtype=np.float32)
    assert np.array_equal(session.download(session.run({"x": x})["out"]), -x)


@pytest.mark.onnx
def test_device_is_measured_through_its_backend(monkeypatch):
    monkeypatch.setattr(probe, "_TIMES", 3)
    found = probe.device_roofline(OnnxRuntimeBackend(1), 0, "float32", side=64, copy_elements=4096)
    assert found.macs_per_s > 1e6
    assert found.bytes_per_s > 1e6
    assert (found.dtype, found.cores) == ("float32", None)
    assert "onnxruntime: float32 product of 64x64" in found.how


@pytest.mark.onnx
def test_backend_that_compiles_nothing_is_refused():
    class Closed(FakeBackend):
        name = "closed"

    with pytest.raises(BackendError, match="closed compiles no graph"):
        probe.device_roofline(Closed(), 0, "float16", side=64, copy_elements=64)


@pytest.mark.onnx
@pytest.mark.tensorrt
@pytest.mark.parametrize("made", [probe.product(256, "float16"), probe.copy(4096)], ids=["product", "copy"])
def test_probes_compile_with_nvidias_compiler(made):
    pytest.importorskip("tensorrt_rtx")

    def for_ada(trt, config):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)

    assert len(compile_model(tensorrt_rtx.TensorRTRTXBackend().sdk(), made.model, for_ada)) > 1000


@pytest.mark.onnx
@pytest.mark.tensorrt
def test_graph_that_the_compiler_refuses_is_an_error_with_its_words():
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendError, match="compile a graph with tensorrt_rtx"):
        compile_model(tensorrt_rtx.TensorRTRTXBackend().sdk(), b"no graph")
