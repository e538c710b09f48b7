"""Tiny ONNX graphs for tests, written operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.schema import GraphSpec, TensorSpec


class Net:
    """Builds an opset-17 graph; every method returns the name of the tensor it makes."""

    def __init__(self, seed: int = 0, dtype: Any = np.float32) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.dtypes: dict[str, int] = {}  # of inputs and outputs that are not float32

    def op(self, kind: str, *inputs: str, scope: str = "", **attributes: Any) -> str:
        name = f"{scope}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def const(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        name = f"const_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.rng.standard_normal(shape) / np.sqrt(shape[0]))

    def linear(self, x: str, width: int, to: int | None = None) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(width, to or width)), self.weight(to or width))

    def norm(self, x: str, width: int, gain: float = 1.0) -> str:
        scale, shift = self.const(np.full(width, gain)), self.const(np.zeros(width))
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-6)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.const(np.array(shape)))

    def model(self, inputs: dict[str, Any], outputs: dict[str, Any], results: dict[str, str]) -> onnx.ModelProto:
        """`inputs`, `outputs`: name → shape (float32); `results`: output name → tensor that becomes it."""
        for output, tensor in results.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [output], name=f"/{output}"))
        graph = helper.make_graph(self.nodes, "net", self.values(inputs), self.values(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def values(self, shapes: dict[str, Any]) -> list[Any]:
        kinds = self.dtypes
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]


def attention(net: Net, x: str, grid: tuple[int, int], heads: int, width: int, official: bool = False) -> str:
    """SAM's global attention with decomposed positions; `official` adds them in a 5-D view, which is not fused."""
    (h, w), size = grid, width // heads
    count = h * w

    def split(tensor: str, perm: tuple[int, ...]) -> str:
        return net.op("Transpose", net.reshape(tensor, 1, count, heads, size), perm=perm)

    q = split(net.linear(x, width), (0, 2, 1, 3))
    k = split(net.linear(x, width), (0, 2, 3, 1))
    v = split(net.linear(x, width), (0, 2, 1, 3))
    q4 = net.reshape(q, heads, h, w, size)
    rows = net.op("MatMul", q4, net.weight(1, h, size, h))
    turned = net.op("MatMul", net.op("Transpose", q4, perm=(0, 2, 1, 3)), net.weight(1, w, size, w))
    columns = net.op("Transpose", turned, perm=(0, 2, 1, 3))
    scores = net.op("MatMul", q, k)
    if official:
        scores = net.op("Add", net.reshape(scores, heads, h, w, h, w), net.reshape(rows, heads, h, w, h, 1))
        scores = net.reshape(net.op("Add", scores, net.reshape(columns, heads, h, w, 1, w)), 1, heads, count, count)
    else:
        bias = net.op("Add", net.reshape(rows, 1, heads, count, h, 1), net.reshape(columns, 1, heads, count, 1, w))
        scores = net.op("Add", scores, net.reshape(bias, 1, heads, count, count))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    return net.linear(net.reshape(net.op("Transpose", mixed, perm=(0, 2, 1, 3)), 1, count, width), width)


def vit(blocks: int = 1, official: bool = False, outlier: float = 1.0) -> onnx.ModelProto:
    """A small transformer: x [1, 36, 64] → y [1, 36, 64]; `outlier` multiplies one channel of the residual stream."""
    net, width, grid = Net(), 64, (6, 6)
    gains = np.ones(width)
    gains[3] = outlier
    x = net.op("Mul", "x", net.const(gains))
    for _ in range(blocks):
        x = net.op("Add", x, attention(net, net.norm(x, width), grid, 2, width, official))
        hidden = net.linear(net.norm(x, width), width, 4 * width)
        x = net.op("Add", x, net.linear(net.op("Mul", hidden, net.op("Sigmoid", hidden)), 4 * width, width))
    return net.model({"x": [1, 36, 64]}, {"y": [1, 36, 64]}, {"y": x})


def save(model: onnx.ModelProto, folder: Path, name: str = "net") -> Path:
    """Write a model with its weights in one external file beside it, as a bundle has it."""
    path = folder / f"{name}.onnx"
    onnx.save(model, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=1024)
    return path


def spec(model: onnx.ModelProto, name: str = "net", precision: str = "fp32", **fields: Any) -> GraphSpec:
    """The `GraphSpec` of a model whose tensors are float32 and static."""

    def tensors(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(v.name, "float32", tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim))
            for v in values
        )

    sides = {"inputs": tensors(model.graph.input), "outputs": tensors(model.graph.output)}
    folder = f"graphs/{precision}"
    files = {"file": f"{folder}/{name}-any.onnx", "data": (f"{folder}/{name}.bin",)}
    return GraphSpec(name, precision, None, **(files | sides | fields))
