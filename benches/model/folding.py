"""Computes what a graph derives from shapes, once these are known, so that more shapes can be inferred from it.

An exporter writes "the first T rows" as Shape, Gather, Unsqueeze and Slice; onnx follows such a chain only part of the
way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_LARGEST = 64  # elements: sizes and bounds, never a table
_NAMES = """
Add Cast Concat ConstantOfShape Div Equal Floor Gather Max Min Mod Mul Range Reshape Slice Squeeze Sub Transpose
Unsqueeze Where
"""
_ARITHMETIC = frozenset(_NAMES.split())


def fold(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replace nodes whose value follows from known shapes by stored tensors, in place; whether there were any."""
    graph = model.graph
    tensors = [*graph.initializer, *(tensor for node in graph.node for tensor in written_out(node))]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors if _small(tensor)}
    kept: list[NodeProto] = []
    for node in graph.node:
        found = _value(node, values, shapes)
        if found is None:
            kept.append(node)
            continue
        values[node.output[0]] = found
        graph.initializer.append(numpy_helper.from_array(found, node.output[0]))
    folded = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return folded


def written_out(node: NodeProto) -> Iterator[TensorProto]:
    """The tensor of a Constant node, under the name of its output."""
    for found in node.attribute if node.op_type == "Constant" else ():
        if found.HasField("t"):
            tensor = TensorProto()
            tensor.CopyFrom(found.t)
            tensor.name = node.output[0]
            yield tensor


def _small(tensor: TensorProto) -> bool:
    return (
        tensor.data_type in _WHOLE
        and int(np.prod(list(tensor.dims))) <= _LARGEST
        and tensor.data_location != TensorProto.EXTERNAL
    )


def _value(
    node: NodeProto, values: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]
) -> npt.NDArray[Any] | None:
    if node.op_type == "Shape" and not node.attribute and node.input[0] in shapes:
        return np.array(shapes[node.input[0]], np.int64)
    if node.op_type not in _ARITHMETIC or not all(name in values for name in node.input if name):
        return None
    feed = {name: values[name] for name in node.input if name}
    results: Any = ReferenceEvaluator(node).run(None, feed)
    made: npt.NDArray[Any] = np.asarray(results[0])
    return made if made.dtype.kind in "ibf" and made.size <= _LARGEST else None
