"""Which nodes of a graph compute in fp32 when the rest computes in fp16, and why.

1. By name: a segment of the node's path starts with "fp32_". Export names its sampling coordinates, mask thresholds and
   pooled means so.
2. By operator: sums over many elements, logarithms and group statistics leave fp16's range or precision.
   (LayerNormalization does not: as one node it sums in fp32 by definition. Nor does Softmax, which is bounded.)
3. By weight: a weight beyond fp16's range, or a small constant that fp16 rounds to zero, such as an epsilon.
4. By measurement: where a calibration saw the residual stream beyond `SAFE`, the sums that make it and the norms that
   read it; and the products whose results are that large, back to their integers if they are quantized. fp32 and not
   bf16: these sums and norms wait for memory and fuse as before, it costs no accuracy, and every GPU has it.
5. By use: nodes that only move values, or turn them into booleans and integers, stay with what they are given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from edgeseg.islands import is_fp32_scope

from .graph import FLOAT, cast_types, floats, users
from .sites import stream
from .weights import Array

FP32_OPERATORS = """
    InstanceNormalization GroupNormalization LpNormalization MeanVarianceNormalization
    ReduceMean ReduceSum ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ReduceProd GlobalAveragePool CumSum
    Exp Log LogSoftmax Pow Reciprocal Sin Cos GridSample Range ConstantOfShape RandomNormal RandomUniform
"""
FOLLOWERS = """
    Reshape Transpose Squeeze Unsqueeze Flatten Slice Split Concat Gather GatherElements GatherND Expand Tile Pad
    Identity Where ScatterND ScatterElements DepthToSpace SpaceToDepth Shape Size
    ReduceMax ReduceMin MaxPool GlobalMaxPool Max Min Clip Relu Neg Abs Sign Floor Ceil Round
    ArgMax ArgMin TopK Greater GreaterOrEqual Less LessOrEqual Equal IsNaN IsInf
"""
FP32_INPUTS = {"Resize": (1, 2)}  # region and scales are fp32 whatever the image's type
HALF_MAX = float(np.finfo(np.float16).max)
SAFE = 2e4
"""A third of what fp16 holds: images differ from those that were measured."""

TINY_COUNT = 16  # in a larger tensor a few weights that round to zero are rounding; in a small one it is an epsilon


def unfit_for_half(array: Array) -> bool:
    """Whether fp16 cannot hold these fp32 values: one is finite and beyond its range, or a constant becomes zero."""
    finite = np.abs(array[np.isfinite(array)])
    if finite.size == 0:
        return False
    if finite.max() > HALF_MAX:
        return True
    return bool(array.size <= TINY_COUNT and np.any((finite != 0) & (finite.astype(np.float16) == 0)))


def fp32_nodes(graph: onnx.GraphProto, types: dict[str, int], unfit: set[str], wide: Collection[str] = ()) -> set[str]:
    """Names of the first outputs of all nodes that stay fp32.

    Args:
        graph: the fp32 master, constants as initialisers.
        types: element type of every tensor.
        unfit: initialisers that fp16 cannot hold.
        wide: tensors that were seen beyond `SAFE`.
    """
    fixed = {node.output[0] for node in graph.node if _is_island(node, types, unfit)} | _around(graph, wide)
    followers = {node.output[0] for node in graph.node if _is_follower(node, types)} - fixed
    return fixed | _settle(graph, types, fixed, followers)


def _is_island(node: onnx.NodeProto, types: dict[str, int], unfit: set[str]) -> bool:
    if is_fp32_scope(node.name) or node.op_type in FP32_OPERATORS.split():
        return True
    if node.op_type == "Cast" and cast_types(node, types)[1] == FLOAT:
        return cast_types(node, types)[0] not in (FLOAT, onnx.TensorProto.BOOL)  # integers may be beyond 2048
    exempt = FP32_INPUTS.get(node.op_type, ())
    return any(name in unfit for position, name in enumerate(node.input) if position not in exempt)


def wide_stream(graph: onnx.GraphProto, peaks: Mapping[str, float]) -> list[str]:
    """Tensors of the residual stream that a calibration saw beyond `SAFE`, by the peaks that it found."""
    return [tensor for name, tensor in stream(graph).items() if peaks.get(name, 0.0) > SAFE]


def _around(graph: onnx.GraphProto, wide: Collection[str]) -> set[str]:
    """What makes these tensors, and the norms that read them."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    found = {node.output[0] for node in graph.node if node.op_type == "LayerNormalization" and node.input[0] in wide}
    todo = [makers[name] for name in wide if name in makers]
    while todo:
        node = todo.pop()
        found.add(node.output[0])
        inner = [makers[name] for name in node.input if name in makers]
        if node.op_type == "Add" and any(name in constants for name in node.input):
            todo += [maker for maker in inner if maker.op_type == "MatMul"]
        elif node.op_type == "MatMul":
            todo += [maker for maker in inner if maker.op_type == "DequantizeLinear"]
    return found


def _is_follower(node: onnx.NodeProto, types: dict[str, int]) -> bool:
    if node.op_type == "Cast":
        return cast_types(node, types)[0] == FLOAT
    return node.op_type in FOLLOWERS.split()


def _settle(graph: onnx.GraphProto, types: dict[str, int], fixed: set[str], followers: set[str]) -> set[str]:
    """The followers that stay fp32: what they read is all fp32, and someone who reads them wants fp32."""
    weights = {tensor.name for tensor in graph.initializer}
    made_by = {name: node.output[0] for node in graph.node for name in node.output}
    readers, results = users(graph), {value.name for value in graph.output}
    staying = set(followers)

    def reads_fp32(node: onnx.NodeProto) -> bool:
        sources = [name for name in floats(node.input, types) if name not in weights]
        return all(name not in made_by or made_by[name] in fixed | staying for name in sources)

    def wanted_fp32(node: onnx.NodeProto) -> bool:
        outputs = list(floats(node.output, types))
        if not outputs:
            return True
        return any(
            name in results or any(reader.output[0] in fixed | staying for reader in readers[name]) for name in outputs
        )

    changed = True
    while changed:
        leaving = {
            node.output[0]
            for node in graph.node
            if node.output[0] in staying and not (reads_fp32(node) and wanted_fp32(node))
        }
        staying -= leaving
        changed = bool(leaving)
    return staying
