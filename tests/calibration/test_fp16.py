from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from edgeseg.calibration import calibrate_graph, half_body, insert_qdq
from edgeseg.calibration.fp16 import Conversion, to_half
from edgeseg.calibration.weights import WeightReader, WeightWriter
from edgeseg.errors import BuildError
from tests.nets import Net, save, vit

pytestmark = pytest.mark.onnx
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def convert(model: onnx.ModelProto, folder: Path, name: str = "net") -> tuple[Path, Conversion]:
    (folder / "fp16").mkdir(exist_ok=True)
    source = save(model, folder, name)
    result, target = onnx.load(source, load_external_data=False), folder / "fp16" / f"{name}.onnx"
    with WeightWriter(folder / "fp16" / f"{name}.bin") as writer:
        files = [source.with_suffix(".bin")] if source.with_suffix(".bin").exists() else []
        report = to_half(result, WeightReader(files), writer, name)
    onnx.save(result, target)
    onnx.checker.check_model(str(target), full_check=True)
    return target, report


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def types(path: Path) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def casts(path: Path) -> list[tuple[int, int]]:
    kinds = types(path)
    nodes = [node for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "Cast"]
    return [(kinds[node.input[0]], kinds[node.output[0]]) for node in nodes]


@pytest.mark.parametrize("outlier", [1.0, 300.0])
def test_result_equals_fp32_to_four_nines_also_with_an_outlier_channel(tmp_path, outlier):
    model = vit(blocks=3, outlier=outlier)
    target, _ = convert(model, tmp_path)
    x = np.random.default_rng(1).standard_normal((1, 36, 64)).astype(np.float32)
    expected, found = run(tmp_path / "net.onnx", x=x)[0], run(target, x=x)[0]
    assert found.dtype == np.float32
    assert cosine(expected, found) >= 0.9999
    assert not np.array_equal(expected, found)


def test_body_is_fp16_between_one_cast_in_and_one_cast_out(tmp_path):
    target, report = convert(vit(), tmp_path)
    assert casts(target) == [(FLOAT, HALF), (HALF, FLOAT)]
    assert report.float_nodes == 0
    weights = onnx.load(target).graph.initializer
    assert {w.data_type for w in weights} == {HALF, TensorProto.INT64}


def test_opset_inputs_and_outputs_stay(tmp_path):
    model = vit()
    result = onnx.load(convert(model, tmp_path)[0])
    assert result.opset_import[0].version == 17
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)


def scoped_net(scope: str) -> onnx.ModelProto:
    """y = 3 * (x + 2000 in `scope`, moved, minus 2000 in `scope`): in fp16 the small part of x is lost."""
    net = Net()
    x = net.op("Mul", "x", net.const(np.float32(1)))
    x = net.op("Add", x, net.const(np.float32(2000)), scope=scope)
    x = net.op("Transpose", net.reshape(x, 8, 8), perm=(1, 0))
    x = net.op("Sub", x, net.const(np.float32(2000)), scope=scope)
    return net.model({"x": [64]}, {"y": [8, 8]}, {"y": net.op("Mul", x, net.const(np.float32(3)))})


@pytest.mark.parametrize(("scope", "exact"), [("/head/fp32_coordinates", True), ("/head/coordinates", False)])
def test_scope_that_starts_with_fp32_computes_in_fp32_and_what_moves_its_values_too(tmp_path, scope, exact):
    target, _ = convert(scoped_net(scope), tmp_path)
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    error = np.abs(run(target, x=x)[0] - run(tmp_path / "net.onnx", x=x)[0]).max()
    assert (error < 4e-3) == exact


def test_no_value_goes_to_fp16_and_back_between_islands(tmp_path):
    target, _ = convert(scoped_net("/fp32_a"), tmp_path)
    assert casts(target) == [(FLOAT, HALF), (HALF, FLOAT), (FLOAT, HALF), (HALF, FLOAT)]
    target, _ = convert(scoped_net("/a"), tmp_path)
    assert casts(target) == [(FLOAT, HALF), (HALF, FLOAT)]


def test_readers_of_one_tensor_share_one_cast(tmp_path):
    net = Net()
    x = net.op("Sigmoid", "x")
    parts = [net.op("Exp", x), net.op("Exp", x), net.op("Log", x)]
    target, _ = convert(net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sum", *parts)}), tmp_path)
    assert casts(target).count((HALF, FLOAT)) == 2  # the shared one, and the output


def test_output_that_an_island_reads_is_cast_once(tmp_path):
    net = Net()
    x = net.op("Sigmoid", "x")
    net.nodes[-1].output[0] = "half"
    y = net.op("Exp", "half")
    target, _ = convert(net.model({"x": [4]}, {"half": [4], "y": [4]}, {"y": y}), tmp_path)
    assert casts(target) == [(FLOAT, HALF), (HALF, FLOAT)]
    assert run(target, x=np.zeros(4, np.float32))[0][0] == 0.5
    assert x


@pytest.mark.parametrize("operator", ["ReduceL2", "ReduceMean", "ReduceSumSquare", "Exp", "GlobalAveragePool"])
def test_operator_that_leaves_the_range_of_fp16_stays_fp32(tmp_path, operator):
    net = Net()
    y = net.op(operator, net.op("Sigmoid", "x"))
    shape = [1, 1, 8, 8] if operator == "Exp" else [1, 1, 1, 1]
    target, report = convert(net.model({"x": [1, 1, 8, 8]}, {"y": shape}, {"y": y}), tmp_path)
    assert types(target)[y] == FLOAT
    assert report.half_nodes == 1


def test_value_that_only_moves_on_its_way_to_fp16_is_cast_first(tmp_path):
    net = Net()
    y = net.op("Sigmoid", net.op("Transpose", net.op("Exp", "x"), perm=(1, 0)))
    _, report = convert(net.model({"x": [2, 3]}, {"y": [3, 2]}, {"y": y}), tmp_path)
    assert (report.half_nodes, report.float_nodes) == (3, 1)


def test_cast_from_fp32_to_fp32_is_dropped(tmp_path):
    net = Net()
    y = net.op("Sigmoid", net.op("Cast", net.op("Sigmoid", "x"), to=FLOAT))
    target, _ = convert(net.model({"x": [4]}, {"y": [4]}, {"y": y}), tmp_path)
    assert casts(target) == [(FLOAT, HALF), (HALF, FLOAT)]


@pytest.mark.parametrize("value", [1e5, 1e-9, -3.4e38])
def test_weight_that_fp16_cannot_hold_keeps_its_node_fp32_and_is_reported(tmp_path, value):
    net = Net()
    y = net.op("Mul", "x", net.const(np.float32(value)))
    target, report = convert(net.model({"x": [4]}, {"y": [4]}, {"y": y}), tmp_path)
    assert report.unfit_weights == ("const_0",)
    assert run(target, x=np.full(4, 0.5, np.float32))[0][0] == np.float32(value) * np.float32(0.5)


@pytest.mark.parametrize("value", [-1e4, -100.0, -np.inf])
def test_mask_value_that_fp16_holds_makes_no_island(tmp_path, value):
    net = Net()
    y = net.op("Add", "x", net.const(np.full((4,), value)))
    _, report = convert(net.model({"x": [4]}, {"y": [4]}, {"y": y}), tmp_path)
    assert (report.unfit_weights, report.float_nodes) == ((), 0)


def test_scales_of_resize_stay_fp32(tmp_path):
    net = Net()
    scales = net.const(np.array([1, 1, 2, 2], np.float32))
    y = net.op("Resize", net.op("Sigmoid", "x"), "", scales, mode="linear")
    target, report = convert(net.model({"x": [1, 1, 4, 4]}, {"y": [1, 1, 8, 8]}, {"y": y}), tmp_path)
    assert report.float_nodes == 0
    assert run(target, x=np.ones((1, 1, 4, 4), np.float32))[0].shape == (1, 1, 8, 8)


def test_counts_made_of_integers_stay_exact(tmp_path):
    net = Net()
    ids = net.op("Cast", "x", to=TensorProto.INT64)
    y = net.op("Add", net.op("Cast", ids, to=FLOAT), net.const(np.float32(0)), scope="/fp32_pool")
    target, _ = convert(net.model({"x": [1]}, {"y": [1]}, {"y": y}), tmp_path)
    assert run(target, x=np.array([60001], np.float32))[0][0] == 60001


def test_constant_nodes_become_weights(tmp_path):
    net = Net()
    value = onnx.numpy_helper.from_array(np.array(2, np.float32), "two")
    y = net.op("Mul", "x", net.op("Constant", value=value))
    target, _ = convert(net.model({"x": [4]}, {"y": [4]}, {"y": y}), tmp_path)
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Cast", "Mul", "Identity", "Cast"]


def test_graph_with_control_flow_is_refused(tmp_path):
    empty = onnx.helper.make_graph([], "g", [], [])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=empty, else_branch=empty)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "net", [], []))
    with WeightWriter(tmp_path / "w.bin") as writer, pytest.raises(BuildError, match="If"):
        to_half(model, WeightReader([]), writer, "net")


@pytest.mark.parametrize("domains", [["unheard.of"], []])
def test_graph_with_an_operator_of_unknown_types_is_refused(tmp_path, domains):
    net = Net()
    model = net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sigmoid", "x")})
    model.graph.node[0].domain, model.graph.node[0].op_type = "unheard.of", "Magic"
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in domains)
    with WeightWriter(tmp_path / "w.bin") as writer, pytest.raises(BuildError, match="Sigmoid_0"):
        to_half(model, WeightReader([]), writer, "net")


def outgrown(boost: float) -> onnx.ModelProto:
    """A transformer in whose second block one channel of the residual stream grows to about `boost`."""
    model = vit(blocks=3)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    last = [node for node in sums if node.input[1] in weights and weights[node.input[1]].dims == [64]][-6]
    bias = onnx.numpy_helper.to_array(weights[last.input[1]]).copy()
    bias[7] = boost
    weights[last.input[1]].CopyFrom(onnx.numpy_helper.from_array(bias, last.input[1]))
    return model


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal((1, 36, 64)).astype(np.float32)} for i in range(count)]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_residual_stream_beyond_fp16_is_fp32_where_it_was_measured(precision):
    model = outgrown(1e5)
    ranges = calibrate_graph(model, feeds(4))
    assert max(ranges.peaks.values()) > 9e4
    body = model if precision == "fp16" else insert_qdq(model, ranges)
    rest = np.delete(np.arange(64), 7)
    expected = run_model(model)[..., rest]
    assert not cosine(expected, run_model(half_body(body))[..., rest]) > 0.9  # NaN, or what integers made of it
    assert cosine(expected, run_model(half_body(body, ranges))[..., rest]) > (0.9999 if precision == "fp16" else 0.98)


def test_stream_within_the_safe_range_makes_no_island():
    model = outgrown(1e3)
    ranges = calibrate_graph(model, feeds(2))
    assert half_body(model, ranges) == half_body(model)


def test_only_what_is_around_the_wide_stream_becomes_fp32():
    model = outgrown(1e5)
    narrow, wide = (
        sum(
            tensor.data_type == FLOAT and len(tensor.dims) == 2 for tensor in half_body(model, ranges).graph.initializer
        )
        for ranges in (None, calibrate_graph(model, feeds(2)))
    )
    assert narrow == 0
    assert wide <= 2  # the product whose bias it is, and at most one more


def run_model(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds(1)[0])[0]
