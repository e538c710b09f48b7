"""Small operations on a graph whose result is the same function in other arithmetic: what a repair tries.

Each takes a model whose weights need not be loaded, changes it in place and returns how many nodes it changed; 0 means
that there was nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper, shape_inference

from edgeseg.errors import BundleError

FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
SMALL_BYTES = 1 << 20  # a constant up to this is converted where it stands, a larger one by a Cast

_NORM_PARTS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Sqrt", "Reciprocal")
_NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", *_NORM_PARTS)
_POINTWISE = ("Add", "Sub", "Mul", "Div")

Files = Mapping[str, Path]  # name of an external data file → where it is


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor whose type can be inferred, by name."""
    graph = shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def turn_softmax(model: onnx.ModelProto) -> int:
    """Take the Softmax of each attention over the transposed scores: compilers then fuse no attention."""
    graph = shape_inference.infer_shapes(model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.input)}
    nodes, count = [], 0
    for node in model.graph.node:
        rank = ranks.get(node.input[0], 0) if node.op_type == "Softmax" else 0
        axis = helper.get_node_attr_value(node, "axis") if any(a.name == "axis" for a in node.attribute) else -1
        if rank < 2 or axis not in (-1, rank - 1):
            nodes.append(node)
            continue
        turned = [*range(rank - 2), rank - 1, rank - 2]
        before, after = f"{node.output[0]}_turned", f"{node.output[0]}_softmax"
        nodes += [
            helper.make_node("Transpose", [node.input[0]], [before], f"{node.name}_turn", perm=turned),
            helper.make_node("Softmax", [before], [after], node.name, axis=rank - 2),
            helper.make_node("Transpose", [after], [node.output[0]], f"{node.name}_turn_back", perm=turned),
        ]
        count += 1
    set_nodes(model, nodes)
    return count


def norms_in_fp32(model: onnx.ModelProto) -> int:
    """Compute normalisations in fp32, also those that are written out as sums, squares and roots."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    feeds = {name for node in model.graph.node if node.op_type in _NORM_PARTS for name in node.input}

    def chosen(node: onnx.NodeProto) -> bool:
        between = any(makers.get(name) in _NORM_PARTS for name in node.input) or any(n in feeds for n in node.output)
        return node.op_type in _NORMS or (node.op_type in _POINTWISE and between)

    return in_fp32(model, chosen)


def in_fp32(model: onnx.ModelProto, chosen: Callable[[onnx.NodeProto], bool]) -> int:
    """Let the chosen nodes compute in fp32; what goes from one to the next stays fp32."""
    types, narrow = types_of(model), (HALF, BFLOAT)
    inside: dict[str, str] = {}  # tensor → the same in fp32
    nodes, count = [], 0
    for node in model.graph.node:
        reduced = [name for name in (*node.input, *node.output) if types.get(name) in narrow]
        if not (reduced and chosen(node)):
            nodes.append(node)
            continue
        count += 1
        for position, name in enumerate(node.input):
            if types.get(name) in narrow and name not in inside:
                inside[name] = f"{name}_widened"
                nodes.append(helper.make_node("Cast", [name], [inside[name]], f"{name}_widen", to=FLOAT))
            node.input[position] = inside.get(name, name)
        results = [name for name in node.output if types.get(name) in narrow]
        node.output[:] = [f"{name}_widened" if name in results else name for name in node.output]
        nodes.append(node)
        for name in results:
            inside[name] = f"{name}_widened"
            nodes.append(helper.make_node("Cast", [inside[name]], [name], f"{name}_narrow", to=types[name]))
    set_nodes(model, nodes)
    return count


def to_bf16(model: onnx.ModelProto, files: Files) -> int:
    """Put bfloat16 in the place of float16 everywhere: fp32's range, with three digits."""
    halves = [tensor for tensor in model.graph.initializer if tensor.data_type == HALF]
    casts = []
    for tensor in halves:
        size_bytes = 2 * int(np.prod(tensor.dims, dtype=np.int64))
        if size_bytes > SMALL_BYTES:
            original = f"{tensor.name}_half"
            casts.append(helper.make_node("Cast", [original], [tensor.name], f"{tensor.name}_bf16", to=BFLOAT))
            tensor.name = original
        else:
            values = numpy_helper.to_array(loaded(tensor, files)).astype(np.float32)
            tensor.CopyFrom(_bf16_tensor(tensor.name, values))
    count = len(halves)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
                attribute.i = BFLOAT
                count += 1
            if attribute.t.data_type == HALF:
                attribute.t.CopyFrom(_bf16_tensor("", numpy_helper.to_array(attribute.t).astype(np.float32)))
    set_nodes(model, [*casts, *model.graph.node])
    return count


def _bf16_tensor(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> TensorProto:
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
    tensor: TensorProto = helper.make_tensor(name, BFLOAT, values.shape, rounded.tobytes(), raw=True)
    return tensor


def loaded(tensor: TensorProto, files: Files) -> TensorProto:
    """The tensor with its values in it; external ones come from `files` and from nowhere else.

    Raises:
        BundleError: they are in another file, or it is too short.
    """
    copy: TensorProto = TensorProto.FromString(tensor.SerializeToString())
    if not external_data_helper.uses_external_data(tensor):
        return copy
    where = {entry.key: entry.value for entry in tensor.external_data}
    path, offset = files.get(where.get("location", "")), where.get("offset", "0")
    size_bytes = int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if path is None or not offset.isdecimal() or int(offset) + size_bytes > path.stat().st_size:
        found = "it is not where the graph's weights are"
        raise BundleError(f"read the weight {tensor.name}", found, "get an undamaged copy of the bundle")
    with path.open("rb") as file:
        file.seek(int(offset))
        copy.raw_data = file.read(size_bytes)
    del copy.external_data[:]
    copy.data_location = TensorProto.DEFAULT
    return copy


def set_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make these the graph's nodes, and forget the types of the tensors between them."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]  # types in it may have changed
