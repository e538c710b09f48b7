"""Small questions to ask of an ONNX graph, and small repairs that make the answers simple."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto, shape_inference

from edgeseg.errors import BuildError

FLOAT = TensorProto.FLOAT
HALF = TensorProto.FLOAT16


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, by name; external weights need not be loaded.

    Raises:
        BuildError: a type cannot be inferred, so it is not known whether it is fp32.
    """
    todo = "export it with standard operators only"
    try:
        graph = shape_inference.infer_shapes(model).graph
    except shape_inference.InferenceError as error:
        raise BuildError(f"convert the graph {model.graph.name}", str(error), todo) from error
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    unknown = [node.name for node in model.graph.node if not all(types.get(name) for name in node.output if name)]
    if unknown:
        found = f"the types of {len(unknown)} nodes are unknown, the first is {unknown[0]!r}"
        raise BuildError(f"convert the graph {graph.name}", found, todo)
    return types


def users(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read a tensor, by its name."""
    result: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            if name:
                result[name].append(node)
    return result


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """A node's attribute, or None."""
    return next((item for item in node.attribute if item.name == name), None)


def refuse_nested(model: onnx.ModelProto, name: str) -> None:
    """Raise BuildError for graphs inside graphs (If, Loop, local functions): their tensors cannot be retyped here."""
    nested = [node.op_type for node in model.graph.node if any(item.HasField("g") for item in node.attribute)]
    if nested or model.functions:
        found = f"it holds {', '.join(nested) or 'local functions'}"
        raise BuildError(f"convert {name}", found, "export it without control flow")


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initialisers, so that a weight is a weight wherever it came from."""
    kept = []
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        value.t.name = node.output[0]
        graph.initializer.append(value.t)
    replace_nodes(graph, kept)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name that no other has; graphs of other exporters may lack them."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_at_{index}"
        seen.add(node.name)


def drop_float_casts(graph: onnx.GraphProto, types: dict[str, int]) -> None:
    """Remove the Casts of a fp32 graph that cast fp32 to fp32."""
    outputs = {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node_inputs = [renamed.get(name, name) for name in node.input]
        node.input[:] = node_inputs
        if node.op_type == "Cast" and cast_types(node, types) == (FLOAT, FLOAT) and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def cast_types(node: onnx.NodeProto, types: dict[str, int]) -> tuple[int, int]:
    """What a Cast node casts from and to."""
    to = attribute(node, "to")
    return types.get(node.input[0], 0), to.i if to else 0


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make these the graph's nodes."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def floats(names: Iterable[str], types: dict[str, int]) -> Iterator[str]:
    """Those of the tensors that are fp32 in the master."""
    return (name for name in names if name and types.get(name) == FLOAT)
