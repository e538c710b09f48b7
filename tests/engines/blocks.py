"""A bundle whose `sam` is a transformer of three named blocks, and ways to break one of its graphs on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeseg.bundle import Bundle
from edgeseg.calibration.calibrate import calibrate
from edgeseg.calibration.photos import reference_photos
from edgeseg.calibration.quantize import quantize_bundle, quantize_calibrated
from edgeseg.schema import Size
from tests.nets import Net, attention
from tests.tiny_bundle import WIDTH, Toy, make_bundle, toys

CANVAS: Size = (32, 32)
BLOCKS = 3
TOKENS = (CANVAS[0] // 8) * (CANVAS[1] // 8)


def vit(outlier: float = 1.0, canvas: Size = CANVAS) -> Toy:
    """image_sam → sam_1, sam_2; inside, one channel of the residual stream is `outlier` times as large."""
    net, grid = Net(1), (canvas[0] // 8, canvas[1] // 8)
    tokens = grid[0] * grid[1]
    patches = net.op("Conv", "image_sam", net.weight(WIDTH, 3, 8, 8), strides=[8, 8], scope="/patch_embed")
    x = net.op("Transpose", net.reshape(patches, 1, WIDTH, tokens), perm=(0, 2, 1))
    gains = np.ones(WIDTH)
    gains[5] = outlier
    x = net.op("Mul", x, net.const(gains))
    results: dict[str, str] = {}
    for index in range(BLOCKS):
        start = len(net.nodes)
        x = net.op("Add", x, attention(net, net.norm(x, WIDTH), grid, 2, WIDTH))
        hidden = net.linear(net.norm(x, WIDTH), WIDTH, 2 * WIDTH)
        x = net.op("Add", x, net.linear(net.op("Mul", hidden, net.op("Sigmoid", hidden)), 2 * WIDTH, WIDTH))
        for node in net.nodes[start:]:
            node.name = f"/blocks.{index}{node.name}"
        results[f"sam_{index}"] = net.op("Mul", x, net.const(1 / gains))
    del results["sam_0"]
    inputs: dict[str, list[Any]] = {"image_sam": [1, 3, *canvas]}
    outputs: dict[str, list[Any]] = {name: [1, tokens, WIDTH] for name in results}
    return net.model(inputs, outputs, results), inputs, outputs


def make(path: Path, *precisions: str, outlier: float = 1.0, canvases: tuple[Size, ...] = (CANVAS,)) -> Bundle:
    """The bundle, with fp16 and int8 graphs if asked for."""

    def graphs(canvas: Size | None) -> dict[str, Toy]:
        return toys(canvas) | ({"sam": vit(outlier, canvas)} if canvas else {})

    bundle = make_bundle(path, graphs, canvases)
    if "fp16" in precisions:
        quantize_bundle(bundle, nothing)
    for precision in {"int8", "fp8"}.intersection(precisions):
        quantize_calibrated(bundle, precision, calibrate(bundle, reference_photos(bundle), nothing), nothing)
    return bundle


def rewrite(
    bundle: Bundle, name: str, precision: str, change: Callable[[onnx.ModelProto], object], canvas: Size = CANVAS
) -> None:
    """Change a graph where it stands; its weights stay."""
    graph = bundle.graph(name, precision, canvas, "plain")
    model = onnx.load(bundle.graph_files(graph), load_external_data=False)
    change(model)
    with bundle.edit() as edit:
        edit.stage(graph.file).write_bytes(model.SerializeToString())


def insert(model: onnx.ModelProto, tensor: str, *nodes: onnx.NodeProto) -> None:
    """Put nodes after the one that makes a tensor: they make `{tensor}_new` of it, which the others read."""
    place = next(i for i, node in enumerate(model.graph.node) if tensor in node.output)
    for node in model.graph.node:
        node.input[:] = [f"{tensor}_new" if name == tensor else name for name in node.input]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[: place + 1], *nodes, *rest[place + 1 :]])


def constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def round_trip(model: onnx.ModelProto, tensor: str, scale: float) -> None:
    """QuantizeLinear and DequantizeLinear to int8 on a float32 tensor."""
    step = constant(model, f"{tensor}_scale", np.float32(scale))
    zero = constant(model, f"{tensor}_zero", np.int8(0))
    quantize = helper.make_node("QuantizeLinear", [tensor, step, zero], [f"{tensor}_q"], f"{tensor}/Q")
    back = helper.make_node("DequantizeLinear", [f"{tensor}_q", step, zero], [f"{tensor}_new"], f"{tensor}/DQ")
    insert(model, tensor, quantize, back)


def residuals(model: onnx.ModelProto) -> list[str]:
    """The sums that run from block to block."""
    adds = {node.output[0]: node for node in model.graph.node if node.op_type == "Add"}
    return [
        name for name, node in adds.items() if any(source in adds for source in node.input) and "blocks" in node.name
    ]


def quantize_residuals(model: onnx.ModelProto) -> None:
    """What plain tools do: Q/DQ on the residual stream, one scale for a channel of 300 and channels of 1."""
    for tensor in residuals(model):
        round_trip(model, tensor, 300 / 127)


def wrong_scale(model: onnx.ModelProto) -> None:
    """One activation of an int8 graph is quantised as if it were fifty times smaller, so it saturates."""
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    tensor = next(item for item in model.graph.initializer if item.name == scale)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 50, scale))


def not_a_number(model: onnx.ModelProto) -> None:
    """One weight of a bias is a NaN."""
    nan = constant(model, "nan", np.full(WIDTH, np.nan, np.float32))
    insert(
        model, residuals(model)[0], helper.make_node("Add", [residuals(model)[0], nan], [f"{residuals(model)[0]}_new"])
    )


def doubled(model: onnx.ModelProto) -> None:
    """The last result is twice as large, which no cosine sees."""
    node = next(node for node in model.graph.node if "sam_2" in node.output)
    two = constant(model, "two", np.float32(2))
    node.CopyFrom(helper.make_node("Mul", [node.input[0], two], ["sam_2"], "/twice"))


def written_out(model: onnx.ModelProto) -> None:
    """The LayerNorms of an fp16 graph as sums and squares in fp16, where 300 squared is infinite.

    The squares go through a Concat because onnxruntime computes it in fp16: what it computes in fp32 it would hand on
    in fp32, and no overflow would show on a CPU.
    """
    two, nodes = constant(model, "two", np.float16(2)), []
    start, middle, end = (constant(model, f"at_{i}", np.array([i])) for i in (0, WIDTH // 2, WIDTH))
    for node in model.graph.node:
        if node.op_type != "LayerNormalization":
            nodes.append(node)
            continue
        x, gamma, beta, y = node.input[0], node.input[1], node.input[2], node.output[0]
        axis = constant(model, f"{y}_axis", np.array([2]))
        steps = [
            ("ReduceMean", [x], "mean"),
            ("Sub", [x, f"{y}_mean"], "centred"),
            ("Pow", [f"{y}_centred", two], "square"),
            ("Slice", [f"{y}_square", start, middle, axis], "first"),
            ("Slice", [f"{y}_square", middle, end, axis], "second"),
            ("Concat", [f"{y}_first", f"{y}_second"], "squares"),
            ("ReduceMean", [f"{y}_squares"], "variance"),
            ("Sqrt", [f"{y}_variance"], "deviation"),
            ("Div", [f"{y}_centred", f"{y}_deviation"], "unit"),
            ("Mul", [f"{y}_unit", gamma], "scaled"),
        ]
        extra: dict[str, dict[str, Any]] = {"ReduceMean": {"axes": [2]}, "Concat": {"axis": 2}}
        for kind, inputs, result in steps:
            attributes = extra.get(kind, {})
            nodes.append(helper.make_node(kind, inputs, [f"{y}_{result}"], f"{node.name}/{result}", **attributes))
        nodes.append(helper.make_node("Add", [f"{y}_scaled", beta], [y], f"{node.name}/Add"))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def poison(block: int) -> Callable[[onnx.ModelProto], None]:
    """Make the MLP of one block nonsense: its hidden values are what they should not be."""

    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "Sigmoid" and f"/blocks.{block}/" in n.name)
        node.op_type = "Softplus"

    return change


def nothing(_done: int, _total: int) -> None:
    """A watcher that looks away."""
