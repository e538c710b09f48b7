"""Makes the graph of any exporter one whose layers the rules see; what it computes stays the same.

1. Constants are folded, and a weight has one name.
2. Gemm becomes MatMul and Add.
3. A product that gives q, k and v at once becomes three. As one it does not run in int8 on TensorRT: with a scale per
   output channel its compiler turns the weight back into fp16 before the result is split.
"""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from edgeseg.errors import BuildError

_PARTS = 3


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A prepared copy of `model`, an fp32 graph of opset 17 or later that holds its weights.

    Raises:
        BuildError: its opset is older.
    """
    version = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if version < 17:
        raise BuildError(f"prepare the graph {model.graph.name}", f"it has opset {version}", "export it with opset 17")
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model, data_prop=True))
    graph.fold_constants().cleanup()
    _resolve_aliases(graph)
    for node in [node for node in graph.nodes if node.op == "Gemm"]:
        _unfold(graph, node)
    for node in [node for node in graph.nodes if node.op == "MatMul"]:
        _part(graph, node)
    graph.cleanup().toposort()
    result: onnx.ModelProto = gs.export_onnx(graph, ir_version=model.ir_version)
    return result


def _resolve_aliases(graph: gs.Graph) -> None:
    for node in [node for node in graph.nodes if node.op == "Identity" and isinstance(node.inputs[0], gs.Constant)]:
        if node.outputs[0] not in graph.outputs:
            for reader in list(node.outputs[0].outputs):
                reader.inputs = [node.inputs[0] if tensor is node.outputs[0] else tensor for tensor in reader.inputs]


def _unfold(graph: gs.Graph, node: gs.Node) -> None:
    """Gemm with a constant matrix as MatMul and Add; others stay."""
    plain = node.attrs.get("transA", 0) == 0 and node.attrs.get("alpha", 1.0) == node.attrs.get("beta", 1.0) == 1.0
    weight = node.inputs[1]
    if not plain or not isinstance(weight, gs.Constant):
        return
    values = weight.values.T if node.attrs.get("transB", 0) else weight.values
    matrix = gs.Constant(f"{node.name}_matrix", values.copy())
    output = node.outputs[0]
    product = output if len(node.inputs) < 3 else gs.Variable(f"{node.name}_product", dtype=output.dtype)
    graph.nodes.append(gs.Node("MatMul", f"{node.name}_MatMul", inputs=[node.inputs[0], matrix], outputs=[product]))
    if product is not output:
        bias = node.inputs[2]
        graph.nodes.append(gs.Node("Add", f"{node.name}_Add", inputs=[product, bias], outputs=[output]))
    node.outputs.clear()


def _part(graph: gs.Graph, node: gs.Node) -> None:
    """A MatMul whose matrix is three times as wide as high as three, whose results are put together again."""
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant) or weight.values.ndim != 2:
        return
    height, width = weight.values.shape
    if width != _PARTS * height or not _is_cut(node.outputs[0]):
        return
    parts = []
    for index in range(_PARTS):
        values = weight.values[:, index * height : (index + 1) * height].copy()
        part = gs.Variable(f"{node.name}_{'qkv'[index]}_product")
        inputs = [node.inputs[0], gs.Constant(f"{weight.name}_{'qkv'[index]}", values)]
        graph.nodes.append(gs.Node("MatMul", f"{node.name}_{'qkv'[index]}", inputs=inputs, outputs=[part]))
        parts.append(part)
    output = node.outputs[0]
    node.outputs.clear()
    graph.nodes.append(gs.Node("Concat", f"{node.name}_qkv", {"axis": -1}, parts, [output]))


def _is_cut(tensor: gs.Tensor) -> bool:
    """Whether a tensor, with or without a bias added, is cut into pieces; a hidden layer of that width is not."""
    readers = [reader.op for reader in tensor.outputs]
    if readers == ["Add"]:
        readers = [reader.op for reader in tensor.outputs[0].outputs[0].outputs]
    return bool(readers) and all(kind in ("Reshape", "Shape", "Split", "Slice", "Gather") for kind in readers)
