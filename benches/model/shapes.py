"""The shape of every tensor of an ONNX graph, its dynamic axes filled in. Weights are not read, only their shapes.

onnx infers shapes through its own operators; behind a contrib operator it knows nothing, so those of ONNX Runtime that
this project makes are done here, and inference goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference

from .folding import fold, written_out

Shape = tuple[int, ...]

CONTRIB = "com.microsoft"
_AS_FIRST_INPUT = ("SkipLayerNormalization", "Gelu", "FastGelu", "BiasGelu", "QuickGelu")


@dataclass(frozen=True)
class Shapes:
    """A graph with shapes.

    Attributes:
        nodes: in the order in which they run.
        shapes: tensor → shape; a tensor whose shape is not known is missing.
        itemsize: tensor → bytes of an element.
        constants: tensors that do not depend on any input of the graph.
        weights: names of the stored tensors.
        inputs, outputs: of the graph.
    """

    nodes: list[NodeProto]
    shapes: dict[str, Shape]
    itemsize: dict[str, int]
    constants: frozenset[str]
    weights: tuple[TensorProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def elements(self, name: str) -> int | None:
        """How many numbers a tensor holds; None if its shape is not known."""
        return math.prod(self.shapes[name]) if name in self.shapes else None

    def size_bytes(self, name: str) -> int:
        """Bytes of a tensor; 0 if its shape is not known."""
        return (self.elements(name) or 0) * self.itemsize.get(name, 0)


def read_shapes(path: Path, extents: Mapping[str, int]) -> Shapes:
    """Shapes of a graph file.

    Args:
        path: an ONNX file; its external data need not be there.
        extents: of the dynamic axes, by name.
    """
    return infer(onnx.load(path, load_external_data=False), extents)


def infer(model: onnx.ModelProto, extents: Mapping[str, int]) -> Shapes:
    """The same of a model in memory, which is changed."""
    nodes = list(model.graph.node)
    weights = (*model.graph.initializer, *(tensor for node in nodes for tensor in written_out(node)))
    _fill_axes(model, extents)
    known: dict[str, onnx.ValueInfoProto] = {}  # what onnx cannot infer
    while True:
        del model.graph.value_info[:]  # else what was inferred with less knowledge would stay
        model.graph.value_info.extend(known.values())
        model = shape_inference.infer_shapes(model, data_prop=True)
        found = _collect(model)
        more = _contrib_values(model, found)
        known |= more
        if not (fold(model, found.shapes) or more):
            return replace(found, nodes=nodes, weights=weights, constants=_constants(nodes, weights))


def node_type(node: NodeProto) -> str:
    """Its operator: "MatMul", or "com.microsoft.MultiHeadAttention" outside ONNX itself."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def attribute(node: NodeProto, name: str, default: int = 0) -> int:
    """An integer attribute of a node."""
    return next((int(found.i) for found in node.attribute if found.name == name), default)


def _fill_axes(model: onnx.ModelProto, extents: Mapping[str, int]) -> None:
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in extents:
                dim.dim_value = extents[dim.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _contrib_values(model: onnx.ModelProto, found: Shapes) -> dict[str, onnx.ValueInfoProto]:
    """Outputs of contrib operators whose shape is not known yet and follows from what is."""
    types, values = _types(model), {}
    for node in found.nodes:
        shape = _contrib_shape(node, found.shapes) if node.domain == CONTRIB else None
        if shape is not None and node.output[0] not in found.shapes:
            values[node.output[0]] = helper.make_tensor_value_info(node.output[0], types[node.input[0]], shape)
    return values


def _contrib_shape(node: NodeProto, shapes: Mapping[str, Shape]) -> Shape | None:
    known = [shapes.get(name, ()) for name in node.input]
    if node.op_type == "MultiHeadAttention" and known[0]:
        value = known[2] if len(known) > 2 and known[2] else known[0]
        width = value[2] if len(value) == 3 else value[1] * value[3]
        return (*known[0][:2], width)
    if node.op_type == "FusedMatMul" and all(known[:2]):
        rows = known[0][-1 if attribute(node, "transA") else -2]
        columns = known[1][-2 if attribute(node, "transB") else -1]
        batch = max(known[0][:-2], known[1][:-2], key=lambda axes: (len(axes), math.prod(axes)))
        return (*batch, rows, columns)
    return known[0] or None if node.op_type in _AS_FIRST_INPUT else None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _collect(model: onnx.ModelProto) -> Shapes:
    graph = model.graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        if kind.HasField("shape") and min(dims, default=0) >= 0:
            shapes[value.name] = tuple(dims)
    itemsize = {name: helper.tensor_dtype_to_np_dtype(kind).itemsize for name, kind in _types(model).items() if kind}
    stored = {tensor.name for tensor in graph.initializer}
    fed = tuple(value.name for value in graph.input if value.name not in stored)
    outputs = tuple(value.name for value in graph.output)
    return Shapes(list(graph.node), shapes, itemsize, frozenset(), (), fed, outputs)


def _constants(nodes: Iterable[NodeProto], weights: Iterable[TensorProto]) -> frozenset[str]:
    """The stored tensors, shapes (every axis has an extent by now), and what is made of these alone."""
    found = {tensor.name for tensor in weights}
    for node in nodes:
        if node.op_type == "Shape" or all(name in found for name in node.input if name):
            found.update(node.output)
    return frozenset(found)
