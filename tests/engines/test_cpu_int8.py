"""Quantized layers as integer products: the same numbers, every layer, on processors with and without VNNI."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from edgeseg.calibration import calibrate_graph, insert_qdq  # noqa: E402  # after the skips
from edgeseg.engines.cpu_form import to_cpu_form  # noqa: E402
from edgeseg.engines.cpu_int8 import to_integer_products  # noqa: E402
from tests.nets import Net, vit  # noqa: E402

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def quantized():
    model = vit(blocks=2)
    return insert_qdq(model, calibrate_graph(model, [feed(seed) for seed in range(4)]))


def feed(seed):
    return {"x": np.random.default_rng(seed).standard_normal((1, 36, 64)).astype(np.float32)}


def copy(model):
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def run(model, inputs, folder=None):
    options = onnxruntime.SessionOptions()
    if folder:
        options.optimized_model_filepath = str(folder / "optimised.onnx")
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)[0]


@pytest.mark.parametrize("unsigned", [False, True])
def test_every_layer_becomes_an_integer_product_with_the_same_result(quantized, tmp_path, unsigned):
    model = copy(quantized)
    assert to_integer_products(model, unsigned_weights=unsigned) == 12
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["MatMulIntegerToFloat"] == 12
    assert counts["QuantizeLinear"] == 8
    assert counts["DequantizeLinear"] == 0
    expected, found = run(quantized, feed(9)), run(model, feed(9), tmp_path)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    optimised = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert optimised["MatMulIntegerToFloat"] == 12
    assert optimised["Cast"] == 0  # weights are made unsigned once, when the graph is opened


def test_signed_weights_have_the_zero_point_that_onnxruntime_wants_to_make_them_unsigned(quantized):
    model = copy(quantized)
    to_integer_products(model, unsigned_weights=False)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert {types.get(node.input[5]) for node in products} == {onnx.TensorProto.INT8}


def test_biases_are_taken_into_the_products(quantized):
    model = copy(quantized)
    before = Counter(node.op_type for node in model.graph.node)["Add"]
    to_integer_products(model, unsigned_weights=False)
    assert before - Counter(node.op_type for node in model.graph.node)["Add"] == 12


def single(finish, axis=1, bias=True):
    net = Net()
    product = net.op("MatMul", net.op("Sigmoid", "x"), net.weight(32, 32))
    y = finish(net, net.op("Add", product, net.weight(32)) if bias else product, product)
    model = net.model({"x": [4, 32]}, {"y": [4, 32]}, {"y": y})
    inputs = {"x": np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)}
    return insert_qdq(model, calibrate_graph(model, [inputs])), inputs


@pytest.mark.parametrize("bias", [True, False])
def test_product_that_is_read_twice_keeps_its_own_result(bias):
    model, inputs = single(lambda net, y, product: net.op("Mul", y, product), bias=bias)
    changed = copy(model)
    assert to_integer_products(changed) == 1
    assert np.allclose(run(model, inputs), run(changed, inputs), atol=1e-5)


def test_graph_without_quantized_layers_is_left_alone():
    model = vit()
    changed = copy(model)
    assert to_integer_products(changed) == 0
    assert changed == model


def test_cpu_form_of_a_quantized_graph_has_both(quantized, monkeypatch):
    monkeypatch.setattr("edgeseg.engines.cpu_form.LEAST_TOKENS", 8)
    model = copy(quantized)
    assert to_cpu_form(model) == 12 + 2
    counts = Counter(node.op_type for node in model.graph.node)
    assert (counts["MultiHeadAttention"], counts["MatMulIntegerToFloat"]) == (2, 12)
    assert [item.domain for item in model.opset_import].count("com.microsoft") == 1
    assert np.abs(run(model, feed(9)) - run(quantized, feed(9))).max() < 1e-3


def test_largest_products_do_not_overflow():
    """Two bytes of 255 times two of 127 are beyond 16 bits."""
    net = Net()
    net.rng = np.random.default_rng(0)
    y = net.op("MatMul", "x", net.const(np.ones((64, 32))))
    model = net.model({"x": [4, 64]}, {"y": [4, 32]}, {"y": y})
    inputs = {"x": np.ones((4, 64), np.float32)}
    changed = insert_qdq(model, calibrate_graph(model, [inputs]))
    to_integer_products(changed)
    assert np.allclose(run(changed, inputs), 64, rtol=2e-3)
