"""What the GPU's peers need of a machine; TensorRT-RTX compiles without a GPU, so the plain build is run for real."""

import numpy as np
import pytest

from benches.peers import gpu
from benches.peers.side import AbsentError
from edgeseg.backends.base import Probe


@pytest.fixture
def trt():
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def half(tmp_path):
    """An fp16 product with fp32 input and output, as `plain_half` writes them."""
    import onnx
    from onnx import TensorProto, helper

    weights = onnx.numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["features"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("image", "features")]
    graph = helper.make_graph(nodes, "half", ends[:1], ends[1:], [weights])
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.tensorrt
@pytest.mark.onnx
def test_plain_build_takes_its_types_from_the_graph_where_there_is_no_fp16_flag(trt, half):
    assert not gpu.has_fp16_flag(trt)
    assert len(gpu.build(trt, half)) > 1000


@pytest.mark.tensorrt
def test_a_file_that_cannot_be_parsed_leaves_the_plain_build_out(trt, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(AbsentError, match=r"tensorrt_rtx [\d.]+ cannot parse it: \S+"):
        gpu.build(trt, tmp_path / "bad.onnx")


def test_without_a_gpu_the_reason_names_what_every_sdk_found(monkeypatch, tmp_path):
    class Backend:
        def __init__(self, name):
            self.name = name

        def probe(self):
            return Probe(False, None, f"{self.name} finds no device")

    monkeypatch.setattr(gpu, "get_backend", Backend)
    with pytest.raises(AbsentError, match="no GPU: tensorrt finds no device; tensorrt_rtx finds no device"):
        gpu.check(tmp_path)


def test_the_first_sdk_that_works_is_taken(monkeypatch):
    class Backend:
        def __init__(self, name):
            self.name = name

        def probe(self):
            return Probe(self.name == "tensorrt_rtx", "sm87", "")

    monkeypatch.setattr(gpu, "get_backend", Backend)
    assert gpu.working()[0].name == "tensorrt_rtx"
