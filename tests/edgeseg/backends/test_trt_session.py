import numpy as np
import pytest

from edgeseg.backends import cuda, tensorrt, tensorrt_rtx, trt_session
from edgeseg.backends.cuda.fake import FakeCuda
from edgeseg.chain import Chain, Link
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec
from tests.conftest import HAS_GPU, gpu_count
from tests.edgeseg.backends import trt_stub

GRAPH = GraphSpec(
    name="sam",
    precision="fp16",
    canvas=None,
    file="graphs/fp16/sam-any.onnx",
    data=(),
    inputs=(TensorSpec("x", "float32", (1, "N")),),
    outputs=(TensorSpec("y", "float32", (1, "N")),),
    axes={"N": (1, 4, 8)},
)


@pytest.fixture
def device():
    return FakeCuda()


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "sam-any.engine"
    path.write_bytes(trt_stub.MAGIC)
    return path


@pytest.fixture
def backend(device, monkeypatch):
    """The backend tensorrt on the fake device with the stand-in SDK."""
    monkeypatch.setattr(cuda, "LAYERS", (lambda index: device,))
    monkeypatch.setattr(tensorrt.TensorRTBackend, "import_sdk", lambda self: trt_stub.module(device))
    return tensorrt.TensorRTBackend()


@pytest.fixture
def session(backend, engine):
    return backend.open(engine, GRAPH)


class Renamed:
    """A session whose x and y have other names, so that a chain can wire several."""

    def __init__(self, session, source, output):
        self._session, self._source, self._output = session, source, output
        self.upload, self.download, self.close = session.upload, session.download, session.close

    def run(self, inputs, stream=None):
        return {self._output: self._session.run({"x": inputs[self._source]}, stream)["y"]}


def renamed(graph, source, output):
    names = {
        "inputs": (TensorSpec(source, "float32", (1, "N")),),
        "outputs": (TensorSpec(output, "float32", (1, "N")),),
    }
    return GraphSpec(**{**vars(graph), **names})


def ones(value=1.0, extent=4):
    return np.full((1, extent), value, np.float32)


def test_a_run_gives_what_the_engine_computes(session):
    assert session.download(session.run({"x": session.upload(ones(3))})["y"]).tolist() == [[7] * 4]


def test_shapes_may_change_between_runs(session):
    for extent in (4, 8, 1, 4):
        assert session.download(session.run({"x": session.upload(ones(3, extent))})["y"]).shape == (1, extent)


def test_sessions_on_two_streams_see_each_others_results(backend, engine):
    first, second = backend.open(engine, GRAPH), backend.open(engine, GRAPH)
    left, right = backend.streams(2)
    x = first.upload(ones(1))  # held: a block that went back would be reused, and bring its own wait
    middle = first.run({"x": x}, left)["y"]
    assert second.download(second.run({"x": middle}, right)["y"])[0, 0] == 7


def test_a_chain_on_two_streams_gives_what_one_stream_gives(backend, engine):
    names = {"a": "x", "b": "a", "c": "a", "d": "x", "e": "d"}  # output → input
    links = []
    for output, source in names.items():
        graph = GraphSpec(**{**vars(GRAPH), "name": output})
        links.append(Link(renamed(graph, source, output), Renamed(backend.open(engine, graph), source, output)))
    for count in range(3):
        tensors = Chain(links, backend.streams(count)).run({"x": ones(1)}, ["b", "c", "e"]).tensors
        assert {name: array[0, 0] for name, array in tensors.items()} == {"b": 7, "c": 7, "e": 7}


def test_an_output_that_is_held_survives_later_runs(session):
    outputs = [session.run({"x": session.upload(ones(value))})["y"] for value in range(5)]
    assert [session.download(output)[0, 0] for output in outputs] == [1, 3, 5, 7, 9]


def test_runs_of_one_session_on_two_streams_follow_each_other(session, backend, device):
    left, right = backend.streams(2)
    held = [session.upload(ones(1)), session.upload(ones(2))]
    first = session.run({"x": held[0]}, left)["y"]
    device.view(first.pointer, 16)[:] = 0
    session.run({"x": held[1]}, right)
    right.synchronize()
    assert device.view(first.pointer, 16).view(np.float32)[0] == 3


def test_a_warm_session_allocates_nothing(session, device):
    for image in range(5):
        session.download(session.run({"x": session.upload(ones(image))})["y"])
        if image == 0:
            warm = device.allocations
    assert device.allocations == warm


def test_close_frees_all_memory_and_then_refuses_to_run(session, device):
    x = session.upload(ones())
    session.download(session.run({"x": x})["y"])
    session.close()
    assert list(device.memory) == [x.pointer]
    with pytest.raises(BackendError, match="the session is closed"):
        session.run({"x": x})


def test_close_waits_for_the_run_that_is_under_way(session, device):
    x = session.upload(ones(1))
    y = session.run({"x": x})["y"]
    session.close()
    assert device.view(y.pointer, 16).view(np.float32)[0] == 3


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, r"inputs \[\], not \['x'\]"),
        ({"x": ones(), "z": ones()}, r"inputs \['x', 'z'\]"),
        ({"x": ones().astype(np.float16)}, "x is float16, not float32"),
        ({"x": ones(extent=9)}, r"x is \(1, 9\), and the engine takes \(1, 1\) to \(1, 8\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(session, inputs, words):
    with pytest.raises(BackendError, match=words):
        session.run({name: session.upload(array) for name, array in inputs.items()})


def test_a_numpy_array_is_not_taken_for_a_device_tensor(session):
    with pytest.raises(BackendError, match="a ndarray instead of a device tensor; upload it first"):
        session.run({"x": ones()})


def test_an_engine_that_the_sdk_refuses_gives_its_reason_and_the_rebuild_command(backend, tmp_path):
    path = tmp_path / "a.bundle" / "engines" / "sam.engine"
    path.parent.mkdir(parents=True)
    (tmp_path / "a.bundle" / "bundle.json").write_text("{}")
    path.write_bytes(b"other")
    command = f"edgeseg build {tmp_path}/a.bundle --backend tensorrt --precision fp16"
    with pytest.raises(BackendError, match=f"tensorrt 10.3.0: the plan is of another version; run `{command}`"):
        backend.open(path, GRAPH)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": (TensorSpec("image", "float32", (1, 4)),)}, r"its tensors are \['x', 'y'\]"),
        ({"outputs": (TensorSpec("y", "int32", (1, 4)),)}, "y is 0, not int32"),
        ({"outputs": ()}, "its tensors are"),
    ],
)
def test_an_engine_with_other_tensors_than_its_graph_is_refused(backend, engine, change, words):
    with pytest.raises(BackendError, match=words):
        backend.open(engine, GraphSpec(**{**vars(GRAPH), **change}))


def test_a_tensor_that_must_lie_in_host_memory_is_refused(backend, engine, monkeypatch):
    monkeypatch.setattr(trt_stub.ICudaEngine, "get_tensor_location", lambda self, name: trt_stub.TensorLocation.HOST)
    with pytest.raises(BackendError, match="must be in host memory"):
        backend.open(engine, GRAPH)


def test_a_failed_run_is_an_error_and_leaves_the_session_usable(session, monkeypatch):
    x = session.upload(ones(1))
    with monkeypatch.context() as patch:
        patch.setattr(trt_stub.IExecutionContext, "execute_async_v3", lambda self, handle: False)
        with pytest.raises(BackendError, match="cannot run the tensorrt engine of 'sam'"):
            session.run({"x": x})
    assert session.download(session.run({"x": x})["y"])[0, 0] == 3


def test_dtypes_that_an_sdk_lacks_or_numpy_lacks_are_none():
    assert trt_session.numpy_dtype(trt_stub, trt_stub.DataType.HALF) == np.float16
    assert trt_session.numpy_dtype(trt_stub, trt_stub.DataType.FP8) is None


def test_the_log_keeps_errors_only_and_the_last_of_them():
    log = trt_session.make_log(trt_stub)
    assert log.take() == "it gives no reason"
    for index in range(20):
        log.log(trt_stub.Severity.ERROR, f"error {index}")
        log.log(trt_stub.Severity.WARNING, "warning")
    assert log.take() == " / ".join(f"error {index}" for index in range(12, 20))


def test_probe_gives_the_device_key_and_name(backend):
    probe = backend.probe()
    assert (probe.works, probe.builds, probe.device) == (True, True, "sm87-trt10.3.0")
    assert probe.why == "fake device through fake"
    assert probe.versions == {"tensorrt": "10.3.0", "cuda driver": "12.6"}


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("libnvinfer.so.10: missing"), AttributeError("x")])
def test_probe_never_raises_whatever_the_import_raises(error, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(tensorrt.TensorRTBackend, "import_sdk", fail)
    probe = tensorrt.TensorRTBackend().probe()
    assert (probe.works, probe.builds, probe.device) == (False, False, None)
    assert str(error) in probe.why
    assert "pip install 'edgeseg[tensorrt]'" in probe.why


def test_on_a_jetson_the_advice_is_jetpacks(monkeypatch):
    monkeypatch.setattr(tensorrt, "jetson_hint", lambda: "use JetPack's")
    monkeypatch.setattr(tensorrt.TensorRTBackend, "import_sdk", lambda self: 1 / 0)
    assert tensorrt.TensorRTBackend().probe().why.endswith("; use JetPack's")


def test_rtx_refuses_an_architecture_that_it_has_no_target_for(device, monkeypatch):
    stub = trt_stub.module(device)
    stub.ComputeCapability = type("ComputeCapability", (), {"SM89": 1})
    monkeypatch.setattr(cuda, "LAYERS", (lambda index: device,))
    monkeypatch.setattr(tensorrt_rtx.TensorRTRTXBackend, "import_sdk", lambda self: stub)
    probe = tensorrt_rtx.TensorRTRTXBackend().probe()
    assert (probe.works, probe.builds) == (False, True)
    assert "does not support fake device (sm87)" in probe.why


@pytest.mark.tensorrt
@pytest.mark.skipif(gpu_count() > 0, reason=HAS_GPU)
def test_the_real_rtx_builds_without_a_gpu_and_says_so():
    pytest.importorskip("tensorrt_rtx")
    probe = tensorrt_rtx.TensorRTRTXBackend().probe()
    assert (probe.works, probe.builds, probe.device) == (False, True, None)
    assert "builds here for other machines" in probe.why


@pytest.mark.tensorrt
def test_the_real_rtx_refuses_a_file_that_is_no_engine(tmp_path):
    trt = pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "a.engine"
    path.write_bytes(b"not an engine " * 100)
    sdk = trt_session.Sdk("tensorrt_rtx", trt, trt_session.make_log(trt))
    with pytest.raises(BackendError, match=r"TRT engine file.*run `edgeseg build B`"):
        trt_session.load_engine(sdk, path, "edgeseg build B")


@pytest.mark.tensorrt
def test_the_real_rtx_has_the_data_types():
    trt = pytest.importorskip("tensorrt_rtx")
    found = [
        trt_session.numpy_dtype(trt, dtype) for dtype in (trt.DataType.HALF, trt.DataType.INT64, trt.DataType.BF16)
    ]
    assert found == [np.float16, np.int64, None]
