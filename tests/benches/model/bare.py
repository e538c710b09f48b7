"""Graphs of full size without their numbers: weights have shapes only, so SAM-H is a file of kilobytes.

The official forms of SAM's image encoder (facebookresearch/segment-anything) and CLIP's encoders, product by product.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from edgeseg.benches.model.cost import GraphCost, count_shapes
from edgeseg.benches.model.shapes import infer


class Bare:
    """Collects nodes; `op` and `weight` give the name of what they make."""

    def __init__(self, opset: int = 17) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._opset = opset

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def weight(self, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        tensor = TensorProto(name=f"w{len(self.weights)}", data_type=kind, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="nowhere.bin")
        self.weights.append(tensor)
        return tensor.name

    def const(self, *values: int) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], list(values)))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.const(*shape))

    def linear(self, x: str, width: int, to: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(width, to)), self.weight(to))

    def model(self, inputs: dict[str, list[Any]], output: str) -> Any:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "bare", values, [result], self.weights)
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def count(self, inputs: dict[str, list[Any]], output: str, **extents: int) -> GraphCost:
        return count_shapes(infer(self.model(inputs, output), extents))


def heads(net: Bare, qkv: str, tokens: tuple[int, int], width: int, number: int) -> tuple[str, str, str]:
    """q, k transposed, and v of each window's heads: (windows * heads, N, d)."""
    windows, count = tokens
    size = width // number
    parts = net.op("Transpose", net.reshape(qkv, windows, count, 3, number, size), perm=[2, 0, 3, 1, 4])
    flat = net.reshape(parts, 3, windows * number, count, size)
    bounds = [net.op("Slice", flat, *(net.const(v) for v in (i, i + 1, 0))) for i in range(3)]
    q, k, v = (net.reshape(part, windows * number, count, size) for part in bounds)
    return q, net.op("Transpose", k, perm=[0, 2, 1]), v


def sam_official(width: int, depth: int, number: int, *, side: int = 1024) -> GraphCost:
    """The image encoder with its neck: windows of 14 padded before the products, positions by two einsums."""
    net, grid, window, size = Bare(), side // 16, 14, width // number
    rows = -(-grid // window)
    x = net.op("Conv", "image", net.weight(width, 3, 16, 16), net.weight(width), strides=[16, 16])
    x = net.reshape(net.op("Transpose", x, perm=[0, 2, 3, 1]), 1, grid, grid, width)
    for block in range(depth):
        edge = grid if (block + 1) % (depth // 4) == 0 else window
        y, tiles = x, 1
        if edge == window:
            pad = rows * window - grid
            y = net.op("Pad", y, net.const(0, 0, 0, 0, 0, pad, pad, 0))
            y, tiles = net.reshape(y, rows * rows, window, window, width), rows * rows
        qkv = net.linear(y, width, 3 * width)
        q, k, v = heads(net, qkv, (tiles, edge * edge), width, number)
        grid_q = net.reshape(q, tiles * number, edge, edge, size)
        by_row = net.op("Einsum", grid_q, net.weight(edge, edge, size), equation="bhwc,hkc->bhwk")
        by_column = net.op("Einsum", grid_q, net.weight(edge, edge, size), equation="bhwc,wkc->bhwk")
        scores = net.reshape(net.op("MatMul", q, k), tiles * number, edge, edge, edge, edge)
        scores = net.op("Add", scores, net.reshape(by_row, tiles * number, edge, edge, edge, 1))
        scores = net.op("Add", scores, net.reshape(by_column, tiles * number, edge, edge, 1, edge))
        weights = net.op("Softmax", net.reshape(scores, tiles * number, edge * edge, edge * edge), axis=-1)
        mixed = net.reshape(net.op("MatMul", weights, v), tiles, number, edge * edge, size)
        merged = net.reshape(net.op("Transpose", mixed, perm=[0, 2, 1, 3]), tiles, edge, edge, width)
        y = net.reshape(net.linear(merged, width, width), 1, rows * window if tiles > 1 else grid, -1, width)
        if edge == window:
            y = net.op("Slice", y, net.const(0, 0), net.const(grid, grid), net.const(1, 2))
        x = net.op("Add", x, y)
        x = net.op("Add", x, net.linear(net.linear(x, width, 4 * width), 4 * width, width))
    x = net.op("Conv", net.op("Transpose", x, perm=[0, 3, 1, 2]), net.weight(256, width, 1, 1))
    x = net.op("Conv", x, net.weight(256, 256, 3, 3), pads=[1, 1, 1, 1])
    return net.count({"image": [1, 3, side, side]}, x)


def transformer(net: Bare, x: str, tokens: tuple[int, int], sizes: tuple[int, int, int]) -> str:
    """`depth` plain blocks. `tokens`: (batch, N); `sizes`: width, depth, heads."""
    (batch, count), (width, depth, number) = tokens, sizes
    for _ in range(depth):
        q, k, v = heads(net, net.linear(x, width, 3 * width), tokens, width, number)
        mixed = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=-1), v)
        merged = net.op("Transpose", net.reshape(mixed, batch, number, count, width // number), perm=[0, 2, 1, 3])
        x = net.op("Add", x, net.linear(net.reshape(merged, batch, count, width), width, width))
        x = net.op("Add", x, net.linear(net.linear(x, width, 4 * width), 4 * width, width))
    return x


def clip_image(patch: int, side: int, sizes: tuple[int, int, int], embedding: int) -> GraphCost:
    """CLIP's image encoder."""
    net, width, count = Bare(), sizes[0], (side // patch) ** 2
    x = net.op("Conv", "image", net.weight(width, 3, patch, patch), strides=[patch, patch])
    x = net.op("Transpose", net.reshape(x, 1, width, count), perm=[0, 2, 1])
    x = transformer(net, net.op("Concat", net.weight(1, 1, width), x, axis=1), (1, 1 + count), sizes)
    first = net.op("Slice", x, net.const(0), net.const(1), net.const(1))
    return net.count({"image": [1, 3, side, side]}, net.op("MatMul", first, net.weight(width, embedding)))


def clip_text(sizes: tuple[int, int, int], embedding: int) -> GraphCost:
    """CLIP's text encoder, one prompt."""
    net, width = Bare(), sizes[0]
    x = transformer(net, "tokens", (1, 77), sizes)
    last = net.op("Slice", x, net.const(76), net.const(77), net.const(1))
    return net.count({"tokens": [1, 77, width]}, net.op("MatMul", last, net.weight(width, embedding)))
