"""Where QuantizeLinear and DequantizeLinear go, and what they hold."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from edgeseg.calibration import GraphRanges, calibrate_graph, half_body, insert_qdq
from edgeseg.calibration.ranges import Smoothing
from edgeseg.calibration.sites import find_sites
from edgeseg.errors import BuildError, InputError
from tests.nets import Net, vit

pytestmark = pytest.mark.onnx


def feeds(count=4, seed=0):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((1, 36, 64)).astype(np.float32)} for _ in range(count)]


@pytest.fixture(scope="module")
def made():
    """(fp32 model, its ranges, its int8 graph, its fp8 graph)."""
    model = vit(blocks=2)
    ranges = calibrate_graph(model, feeds())
    return model, ranges, insert_qdq(model, ranges), insert_qdq(model, ranges, "fp8")


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)[0]


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def makers(model):
    return {name: node for node in model.graph.node for name in node.output}


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize(("which", "least"), [(2, 0.995), (3, 0.97)])
def test_graph_is_valid_and_close_to_fp32(made, which, least):
    onnx.checker.check_model(made[which], full_check=True)
    feed = feeds(seed=5)[0]
    expected, found = run(made[0], feed), run(made[which], feed)
    assert least < cosine(expected, found) < 1 - 1e-7


@pytest.mark.parametrize("which", [2, 3])
def test_every_layer_multiplies_dequantized_numbers(made, which):
    model, graph = made[0], made[which]
    names = {layer.node for site in find_sites(model).layers for layer in site.layers}
    made_by = makers(graph)
    found = [node for node in graph.graph.node if node.name in names]
    assert len(found) == 12
    for node in found:
        assert [made_by[name].op_type for name in node.input] == ["DequantizeLinear"] * 2


def test_a_tensor_is_quantized_once_for_all_who_read_it(made):
    counts = Counter(node.op_type for node in made[2].graph.node)
    assert counts["QuantizeLinear"] == 2 * 4
    assert counts["DequantizeLinear"] == 2 * 4 + 2 * 6


def test_int8_touches_no_sum_no_norm_no_softmax_and_no_attention(made):
    made_by = makers(made[2])
    for node in made[2].graph.node:
        if node.op_type in ("Add", "LayerNormalization", "Softmax", "Mul", "Sigmoid", "Transpose", "Reshape"):
            read = [made_by[name].op_type for name in node.input if name in made_by]
            assert "DequantizeLinear" not in read
    products = {product.node for product in find_sites(made[0]).attentions}
    for node in made[2].graph.node:
        if node.name in products:
            assert "DequantizeLinear" not in [made_by[name].op_type for name in node.input]


def test_fp8_quantizes_both_products_of_each_attention_directly_before_them(made):
    made_by, constants = makers(made[3]), weights(made[3])
    products = {product.node: product for product in find_sites(made[0]).attentions}
    for node in (node for node in made[3].graph.node if node.name in products):
        pairs = [made_by[name] for name in node.input]
        assert [pair.op_type for pair in pairs] == ["DequantizeLinear"] * 2
        before = makers(made[3])[made_by[pairs[0].input[0]].input[0]]
        assert (before.op_type == "Softmax") == products[node.name].shares
        if products[node.name].shares:
            assert 1 / 448 <= constants[pairs[0].input[1]] < 1 / 447
        else:
            keys = made_by[made_by[pairs[1].input[0]].input[0]]
            assert keys.op_type == "Transpose"  # what turns the keys stands in front of the pair


@pytest.mark.parametrize(("which", "kind"), [(2, TensorProto.INT8), (3, TensorProto.FLOAT8E4M3FN)])
def test_nodes_have_three_inputs_a_zero_point_of_zero_and_scales_that_fp16_holds(made, which, kind):
    constants = {tensor.name: tensor for tensor in made[which].graph.initializer}
    for node in made[which].graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[name] for name in node.input[1:])
            values = numpy_helper.to_array(scale)
            assert zero.data_type == kind
            assert not numpy_helper.to_array(zero).astype(np.float32).any()
            assert zero.dims == scale.dims
            assert np.array_equal(values, values.astype(np.float16).astype(np.float32))
            assert (values > 0).all()


def test_weights_have_one_scale_per_output_channel_and_are_rounded_to_the_nearest(made):
    graph = insert_qdq(made[0], GraphRanges(made[1].weights, made[1].sites, {}, made[1].peaks))
    constants, before = weights(graph), weights(made[0])
    for site in find_sites(made[0]).layers:
        for layer in site.layers:
            scale = constants[f"{layer.weight}_scale"]
            assert scale.shape == before[layer.weight].shape[1:]
            exact = np.abs(before[layer.weight]).max(axis=0) / 127
            assert np.all((scale >= exact) & (scale <= exact * 1.001))
            error = np.abs(constants[f"{layer.weight}_int8"] * scale - before[layer.weight])
            assert (error <= scale / 2 * 1.0001).all()


def test_activation_scales_are_the_ranges(made):
    constants = weights(made[2])
    for site in find_sites(made[0]).layers:
        assert constants[f"{site.tensor}_scale"] * 127 == pytest.approx(made[1].sites[site.name].limit, rel=2e-3)


def test_nodes_left_out_stay_as_they_are(made):
    model, ranges = made[:2]
    sites = find_sites(model).layers
    out = {sites[0].layers[1].node, *(layer.node for layer in sites[3].layers)}
    graph = insert_qdq(model, ranges, leave_out=out)
    made_by, constants = makers(graph), weights(graph)
    for node in (node for node in graph.graph.node if node.name in out):
        assert node.input[0] in (site.tensor for site in sites)
        assert constants[node.input[1]].dtype == np.float32
    assert Counter(node.op_type for node in graph.graph.node)["QuantizeLinear"] == 7
    assert (
        made_by[next(n for n in graph.graph.node if n.name == sites[0].layers[0].node).input[0]].op_type
        == "DequantizeLinear"
    )
    feed = feeds(seed=5)[0]
    assert cosine(run(model, feed), run(graph, feed)) > 0.99


def test_attention_left_out_of_fp8_keeps_both_products(made):
    products = find_sites(made[0]).attentions
    graph = insert_qdq(made[0], made[1], "fp8", leave_out={products[0].node})
    made_by = makers(graph)
    kept = [node for node in graph.graph.node if node.name in {product.node for product in products[:2]}]
    assert all(made_by[name].op_type != "DequantizeLinear" for node in kept for name in node.input)


def test_weight_shared_by_layers_of_two_tensors_is_stored_once_and_nodes_stay_in_order():
    net = Net()
    weight = net.weight(32, 32)
    first = net.op("Sigmoid", "x")
    parts = [
        net.op("MatMul", first, net.weight(32, 32)),
        net.op("MatMul", "x", weight),
        net.op("MatMul", first, weight),
    ]
    model = net.model({"x": [4, 32]}, {"y": [4, 32]}, {"y": net.op("Sum", *parts)})
    feed = [{"x": np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)}]
    graph = insert_qdq(model, calibrate_graph(model, feed))
    onnx.checker.check_model(graph, full_check=True)
    assert (
        sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2 for tensor in graph.graph.initializer) == 2
    )


def test_typed_graph_has_an_fp16_body_of_opset_19_with_fp16_scales(made):
    graph = half_body(made[2])
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import[0].version == 19
    types = {tensor.data_type for tensor in graph.graph.initializer}
    assert types == {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64}
    feed = feeds(seed=5)[0]
    assert cosine(run(made[2], feed), run(graph, feed)) > 0.999


@pytest.mark.parametrize("missing", ["sites", "smoothing", "width"])
def test_ranges_of_another_graph_are_refused(made, missing):
    model, ranges = made[:2]
    smoothing = dict(ranges.smoothing)
    sites = dict(ranges.sites)
    if missing == "sites":
        sites.popitem()
    if missing == "smoothing":
        smoothing["/nowhere"] = Smoothing(0.5, (1.0,) * 64)
    if missing == "width":
        smoothing = {next(iter(sites)): Smoothing(0.5, (1.0,) * 3)}
    with pytest.raises(BuildError, match="the ranges are of another graph"):
        insert_qdq(model, GraphRanges(ranges.weights, sites, smoothing, ranges.peaks))


def test_unknown_precision_is_refused(made):
    with pytest.raises(BuildError, match="there are int8, fp8"):
        insert_qdq(made[0], made[1], "int4")


def test_an_onnx_without_fp8_is_refused(made, monkeypatch):
    monkeypatch.setattr(onnx.helper, "tensor_dtype_to_np_dtype", lambda _kind: np.dtype(np.float32))
    with pytest.raises(BuildError, match=r'is too old for it; pip install "onnx>=1.19"'):
        insert_qdq(made[0], made[1], "fp8")


def test_graph_without_layers_is_refused():
    net = Net()
    model = net.model({"x": [4]}, {"y": [4]}, {"y": net.op("Sigmoid", "x")})
    with pytest.raises(BuildError, match="vision transformer"):
        calibrate_graph(model, [{"x": np.zeros(4, np.float32)}])


def test_no_inputs_are_refused():
    with pytest.raises(InputError, match="there are no inputs"):
        calibrate_graph(vit(), [])


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "NaN")])
@pytest.mark.parametrize("place", [0, 11])
def test_a_tensor_that_holds_nan_is_named(bad, word, place):
    runs = feeds(12)
    runs[place]["x"][0, 0, 0] = bad
    with pytest.raises(BuildError, match=rf"LayerNormalization_\d+_out' holds {word}"):
        calibrate_graph(vit(), runs)


def test_ranges_do_not_depend_on_how_often_an_input_is_seen_but_on_its_values():
    model = vit()
    once, twice = calibrate_graph(model, feeds(2)), calibrate_graph(model, feeds(2) * 2)
    assert [site.largest for site in once.sites.values()] == [site.largest for site in twice.sites.values()]
    other = calibrate_graph(model, feeds(2, seed=7))
    assert other.sites != once.sites
