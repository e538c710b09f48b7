import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.benches.model.shapes import infer, read_shapes
from tests.benches.model.bare import Bare

pytestmark = pytest.mark.onnx


def test_dynamic_axes_take_the_extents_that_are_given():
    net = Bare()
    y = net.op("MatMul", "x", net.op("Transpose", "text", perm=[1, 0]))
    model = net.model({"x": [1, 5, 8], "text": ["C", 8]}, y)
    model.graph.output[0].type.tensor_type.shape.dim.extend(
        onnx.TensorShapeProto.Dimension(dim_param=name) for name in ("a", "b", "C")
    )
    found = infer(model, {"C": 150})
    assert found.shapes[y] == (1, 5, 150)
    assert found.elements("text") == 1200
    assert found.size_bytes("text") == 4800


def test_what_was_inferred_for_other_extents_is_forgotten():
    net = Bare()
    y = net.op("Relu", net.op("Relu", "x"))
    model = net.model({"x": ["N", 8]}, y)
    model.graph.value_info.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, [7, 8]))
    assert infer(model, {"N": 2}).shapes["t0"] == (2, 8)


def test_axis_without_an_extent_stays_unknown():
    net = Bare()
    found = infer(net.model({"x": ["N", 8]}, net.op("Relu", "x")), {})
    assert found.elements("t0") is None
    assert found.size_bytes("t0") == 0


def test_inference_goes_on_behind_contrib_operators():
    net = Bare()
    x = "x"
    for _ in range(3):
        q = net.linear(x, 32, 32)
        x = net.op("MultiHeadAttention", q, q, net.linear(x, 32, 48), domain="com.microsoft", num_heads=4)
        x = net.linear(net.op("Gelu", x, domain="com.microsoft"), 48, 32)
    found = infer(net.model({"x": [2, 6, 32]}, x), {})
    assert found.shapes[x] == (2, 6, 32)
    assert all(output in found.shapes for node in found.nodes for output in node.output)


def test_what_follows_from_a_shape_is_computed():
    """The first T rows of a table, T read off the input: Shape, Gather, Unsqueeze, Slice."""
    net = Bare()
    index = helper.make_tensor("index", TensorProto.INT64, [], [1])
    net.weights.append(index)
    length = net.op("Unsqueeze", net.op("Gather", net.op("Shape", "tokens"), "index"), net.const(0))
    rows = net.op("Slice", net.weight(77, 512), net.const(0), length, net.const(0))
    model = net.model({"tokens": ["N", "T"]}, rows)
    nodes = [node.op_type for node in model.graph.node]
    found = infer(model, {"N": 2, "T": 9})
    assert found.shapes[rows] == (9, 512)
    assert [node.op_type for node in found.nodes] == nodes  # folding is for the shapes: every node is still counted


def test_constants_are_what_does_not_depend_on_an_input():
    net = Bare()
    scale = net.op("Mul", net.weight(8), net.weight(8))
    y = net.op("Mul", "x", scale)
    found = infer(net.model({"x": [2, 8]}, y), {})
    assert scale in found.constants
    assert y not in found.constants


def test_written_out_constant_is_a_weight():
    net = Bare()
    value = helper.make_tensor("value", TensorProto.FLOAT, [8], [1.0] * 8)
    y = net.op("Mul", "x", net.op("Constant", value=value))
    found = infer(net.model({"x": [2, 8]}, y), {})
    assert [(tensor.name, list(tensor.dims)) for tensor in found.weights] == [("t0", [8])]


def test_weights_need_not_be_there(tmp_path):
    net = Bare()
    path = tmp_path / "net.onnx"
    path.write_bytes(net.model({"x": [2, 8]}, net.linear("x", 8, 4)).SerializeToString())
    assert read_shapes(path, {}).shapes["t1"] == (2, 4)
