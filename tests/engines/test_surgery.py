"""What a repair does to a graph is the same function, in other arithmetic."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from edgeseg.calibration.fp16 import to_half
from edgeseg.calibration.weights import WeightReader, WeightWriter
from edgeseg.engines import layers
from edgeseg.engines.surgery import in_fp32, loaded, norms_in_fp32, to_bf16, turn_softmax, types_of
from edgeseg.engines.trt_network import Options, compile_graph
from edgeseg.errors import BundleError
from tests.engines.blocks import written_out
from tests.nets import save, spec, vit

pytestmark = pytest.mark.onnx
X = np.random.default_rng(3).standard_normal((1, 36, 64)).astype(np.float32)


@pytest.fixture
def half(tmp_path):
    """A small transformer in fp16, its weights beside it, as (model, folder)."""
    path = save(vit(), tmp_path)
    (tmp_path / "fp16").mkdir()
    model = onnx.load(path, load_external_data=False)
    with WeightWriter(tmp_path / "fp16" / "net.bin") as writer:
        to_half(model, WeightReader([tmp_path / "net.bin"]), writer, "net")
    return model, tmp_path / "fp16"


@pytest.mark.parametrize(
    "changes",
    [{"location": "../net.bin"}, {"location": ""}, {"offset": "-64"}, {"offset": "x"}, {"offset": str(1 << 40)}],
)
def test_weight_is_read_from_the_graphs_own_file_and_within_it(half, changes):
    model, folder = half
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    files = {"net.bin": folder / "net.bin"}
    assert numpy_helper.to_array(loaded(tensor, files)).shape == tuple(tensor.dims)
    for entry in tensor.external_data:
        entry.value = changes.get(entry.key, entry.value)
    with pytest.raises(BundleError, match="read the weight"):
        loaded(tensor, files)


def run(model, folder):
    path = folder / "now.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": X})[0]


@pytest.mark.parametrize(("change", "count"), [(turn_softmax, 1), (norms_in_fp32, 2)])
def test_the_result_stays_the_same_but_for_rounding(half, change, count):
    model, folder = half
    before = run(model, folder)
    assert change(model) == count
    assert np.abs(run(model, folder) - before).max() < 0.03


def test_softmax_is_taken_over_transposed_scores(half):
    model, _ = half
    before = Counter(node.op_type for node in model.graph.node)
    turn_softmax(model)
    after = Counter(node.op_type for node in model.graph.node)
    assert after - before == {"Transpose": 2}
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    assert [(a.name, a.i) for a in node.attribute] == [("axis", 2)]


def test_normalisations_read_and_write_fp32(half):
    model, _ = half
    norms_in_fp32(model)
    types = types_of(model)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert {types[name] for node in norms for name in (*node.input, *node.output)} == {TensorProto.FLOAT}


def test_normalisation_that_is_written_out_is_known_by_its_sums_squares_and_roots(half):
    model, folder = half
    norms = [node.name for node in model.graph.node if node.op_type == "LayerNormalization"]
    written_out(model)
    norms_in_fp32(model)
    types = types_of(model)
    kinds = {node.op_type: types[node.output[0]] for node in model.graph.node if node.name.startswith(norms[0])}
    single = {kind for kind, dtype in kinds.items() if dtype == TensorProto.FLOAT}
    assert {"ReduceMean", "Sub", "Pow", "Sqrt", "Div"} <= single
    assert "Mul" not in single
    run(model, folder)


def test_between_two_nodes_in_fp32_nothing_is_rounded(half):
    model, _ = half
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    assert in_fp32(model, lambda node: node.op_type in ("Sigmoid", "Mul")) == 3
    types = types_of(model)
    mul = [n for n in model.graph.node if n.op_type == "Mul"][-1]
    assert {types[name] for name in mul.input} == {TensorProto.FLOAT}
    sigmoid = next(n for n in model.graph.node if n.op_type == "Sigmoid")
    assert sigmoid.output[0] in mul.input
    assert [name for node in model.graph.node for name in node.output].count(sigmoid.output[0]) == 1
    assert casts < sum(node.op_type == "Cast" for node in model.graph.node)


def test_nothing_is_changed_in_an_fp32_graph():
    model = vit()
    before = model.SerializeToString()
    assert norms_in_fp32(model) == 0
    assert to_bf16(model, {}) == 0
    assert model.SerializeToString() == before


def test_bf16_takes_the_place_of_every_fp16(half):
    model, folder = half
    halves = {
        t.name: numpy_helper.to_array(loaded(t, {"net.bin": folder / "net.bin"})) for t in model.graph.initializer
    }
    assert to_bf16(model, {"net.bin": folder / "net.bin"}) > 10
    assert TensorProto.FLOAT16 not in types_of(model).values()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            wanted = halves[tensor.name].astype(np.float32)
            found = (np.frombuffer(tensor.raw_data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            assert np.allclose(found.reshape(wanted.shape), wanted, rtol=2**-8, atol=0)


def for_sm89(trt):
    def adjust(config):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)

    return Options(adjust=adjust)


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("change", "fused", "kind"),
    [(None, 1, "Half"), (turn_softmax, 0, "Half"), (norms_in_fp32, 1, "Half"), ("bf16", 1, "BFloat16")],
)
def test_nvidias_compiler_takes_it_and_fuses_no_turned_attention(half, change, fused, kind):
    trt = pytest.importorskip("tensorrt_rtx")
    model, folder = half
    if change == "bf16":
        to_bf16(model, {"net.bin": folder / "net.bin"})
    elif change is not None:
        change(model)
    onnx.save(model, folder / "now.onnx")
    found = compile_graph(trt, folder / "now.onnx", spec(vit()), for_sm89(trt), lambda _: None).layers
    assert layers.fused_attentions(found) == fused
    assert kind in {name for layer in found for name in layer.inputs}
