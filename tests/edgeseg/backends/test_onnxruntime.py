import numpy as np
import pytest

from edgeseg.backends import onnxruntime as module
from edgeseg.backends.onnxruntime import BoundSession, OnnxRuntimeBackend
from edgeseg.errors import BackendError
from tests.edgeseg.tiny_bundle import CANVASES

pytestmark = pytest.mark.onnx


@pytest.fixture
def head(tiny):
    spec = tiny.graph("head", "fp32", CANVASES[0])
    return spec, OnnxRuntimeBackend().open(tiny.graph_files(spec), spec)


def feed(spec):
    rng = np.random.default_rng(0)
    return {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in spec.inputs}


def test_outputs_have_the_names_and_shapes_of_the_specification(head):
    spec, session = head
    made = session.run({name: session.upload(array) for name, array in feed(spec).items()})
    assert {name: array.shape for name, array in made.items()} == {t.name: t.shape for t in spec.outputs}


def test_upload_gives_the_array_itself(head):
    array = np.zeros(3, np.float32)
    assert head[1].upload(array) is array
    assert head[1].download(array) is array


def test_bound_session_gives_the_same_numbers(tiny, head):
    spec, session = head
    inference = module._sdk().InferenceSession(str(tiny.graph_files(spec)), providers=["CPUExecutionProvider"])
    bound = BoundSession(inference, spec, "cpu", 0)
    made = bound.run({name: bound.upload(array) for name, array in feed(spec).items()})
    for name, wanted in session.run(feed(spec)).items():
        assert made[name].shape == wanted.shape
        assert np.array_equal(bound.download(made[name]), wanted)


def test_weights_are_made_unsigned_where_the_processor_overflows_and_only_there(head, monkeypatch):
    monkeypatch.setattr(module, "overflows", lambda: True)
    options = OnnxRuntimeBackend()._options(module._sdk(), head[0])
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    monkeypatch.setattr(module, "overflows", lambda: False)
    with pytest.raises(RuntimeError):  # it has no such entry
        OnnxRuntimeBackend()._options(module._sdk(), head[0]).get_session_config_entry("session.x64quantprecision")


def test_wrong_feed_is_our_error_not_the_sdks(head):
    spec, session = head
    bad = feed(spec) | {"sam_2": np.zeros((1, 2, 3), np.float32)}
    with pytest.raises(BackendError, match="sam_2 has the shape"):
        session.run(bad)


def test_file_that_is_no_graph_is_our_error(tmp_path, head):
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"open .*a\.onnx with onnxruntime"):
        OnnxRuntimeBackend().open(tmp_path / "a.onnx", head[0])


def test_closed_session_is_refused(head):
    spec, session = head
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(feed(spec))


def test_missing_package_is_a_reason_with_the_install_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(module, "_sdk", module._sdk.__wrapped__)
    probe = OnnxRuntimeBackend().probe()
    assert not probe.works
    assert 'pip install "edgeseg[onnxruntime]"' in probe.why


def test_sessions_flush_denormals_and_take_the_threads_asked_for():
    from edgeseg.schema import GraphSpec

    graph = GraphSpec("sam", "fp32", None, "sam.onnx", (), (), ())
    options = OnnxRuntimeBackend(threads=3)._options(module._sdk(), graph)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"


def test_denormals_are_zero_in_a_run(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    from edgeseg.schema import GraphSpec, TensorSpec

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    model = helper.make_graph([node], "square", infos[:1], infos[1:])
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    reads, gives = ((TensorSpec(name, "float32", (4,)),) for name in "xy")
    spec = GraphSpec("square", "fp32", None, "m.onnx", (), reads, gives)
    session = OnnxRuntimeBackend(threads=1).open(tmp_path / "m.onnx", spec)
    made = session.run({"x": session.upload(np.full(4, 1e-20, np.float32))})
    assert not session.download(made["y"]).any()
