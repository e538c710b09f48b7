"""The `cpu` form gives the same numbers with fewer nodes, and touches only the pattern it knows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402  # after the skips

from edgeseg.engines import cpu_form  # noqa: E402
from edgeseg.engines.cpu_form import to_cpu_form  # noqa: E402

pytestmark = pytest.mark.onnx

BATCH, LENGTH, HEADS, WIDTH = 2, 24, 3, 8


def attention(*, bias=False, scaled=False, keys_at_once=False, extra=()):
    """An attention over x (2, 24, 24) with q, k and v projections, as the exporter writes it."""
    random = np.random.default_rng(0)
    channels = HEADS * WIDTH
    constants = {f"w{name}": random.standard_normal((channels, channels)).astype(np.float32) for name in "qkv"}
    constants["split"] = np.array([BATCH, LENGTH, HEADS, WIDTH])
    constants["merge"] = np.array([BATCH, LENGTH, channels])
    constants["factor"] = np.array(0.125, np.float32)
    constants["bias"] = random.standard_normal((1, HEADS, LENGTH, LENGTH)).astype(np.float32)
    nodes = []
    for name in "qkv":
        order = [0, 2, 3, 1] if name == "k" and keys_at_once else [0, 2, 1, 3]
        nodes.append(helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}3"]))
        nodes.append(helper.make_node("Reshape", [f"{name}3", "split"], [f"{name}5"]))
        nodes.append(helper.make_node("Transpose", [f"{name}5"], [f"{name}4"], perm=order))
    keys = "k4"
    if scaled:
        nodes.append(helper.make_node("Mul", [keys, "factor"], ["ks"]))
        keys = "ks"
    if not keys_at_once:
        nodes.append(helper.make_node("Transpose", [keys], ["kt"], perm=[0, 1, 3, 2]))
        keys = "kt"
    nodes.append(helper.make_node("MatMul", ["q4", keys], ["scores"]))
    if bias:
        nodes.append(helper.make_node("Add", ["scores", "bias"], ["biased"]))
    nodes.append(helper.make_node("Softmax", ["biased" if bias else "scores"], ["shares"], "/attn/Softmax", axis=-1))
    nodes.append(helper.make_node("MatMul", ["shares", "v4"], ["heads"]))
    nodes.append(helper.make_node("Transpose", ["heads"], ["turned"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["turned", "merge"], ["y"]))
    shape = [BATCH, LENGTH, channels]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", *extra)]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(autouse=True)
def any_length(monkeypatch):
    """These attentions are tiny."""
    monkeypatch.setattr(cpu_form, "LEAST_TOKENS", LENGTH)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((BATCH, LENGTH, HEADS * WIDTH)).astype(np.float32)
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scaled", "keys_at_once"), [(False, False), (True, False), (False, True)])
def test_an_attention_becomes_one_operator_with_the_same_result(bias, scaled, keys_at_once):
    model = attention(bias=bias, scaled=scaled, keys_at_once=keys_at_once)
    before = run(model)
    assert to_cpu_form(model) == 1
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {"MatMul": 3, "MultiHeadAttention": 1}
    assert np.abs(run(model) - before).max() < 2e-5
    assert bool({"bias"} & {tensor.name for tensor in model.graph.initializer}) is bias


def test_what_is_an_output_of_the_graph_stays():
    model = attention(extra=["shares"])
    assert to_cpu_form(model) == 1
    assert "shares" in {name for node in model.graph.node for name in node.output}


def test_an_unknown_layout_of_heads_is_left_alone():
    model = attention()
    merged = next(node for node in model.graph.node if node.output[0] == "turned")
    merged.attribute[0].ints[:] = [0, 1, 2, 3]
    count = len(model.graph.node)
    assert to_cpu_form(model) == 0
    assert len(model.graph.node) == count


def test_a_short_attention_is_left_alone(monkeypatch):
    monkeypatch.setattr(cpu_form, "LEAST_TOKENS", LENGTH + 1)
    assert to_cpu_form(attention()) == 0
