"""What each operator costs: multiply-accumulates, element operations, or nothing.

Rules:

1. A multiply-accumulate is a product and the addition of it. Matrix products, convolutions and attentions are made of
   them; a bias that is added and a softmax inside an attention are not counted.
2. An operator that computes element by element counts one operation per element of its output, one that reduces or
   normalises one per element of its input, whatever the function. That is a size, not a time.
3. An operator that only moves or renames data counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from .shapes import CONTRIB, Shape, Shapes, attribute

Macs = Callable[[NodeProto, list[Shape]], int]

_MOVES = """
Cast CastLike Concat Constant ConstantOfShape DepthToSpace EyeLike Expand Flatten Gather GatherElements GatherND
Identity OneHot Pad Range Reshape ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze
Tile Transpose Unsqueeze
"""
_ELEMENTWISE = """
Abs Add And BitShift Ceil Clip Cos DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu Greater
GreaterOrEqual GridSample HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg
Not Or Pow PRelu QuantizeLinear Reciprocal Relu Resize Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Tanh
ThresholdedRelu Trilu Upsample Where Xor
com.microsoft.BiasGelu com.microsoft.FastGelu com.microsoft.Gelu com.microsoft.QuickGelu
"""
_REDUCING = """
ArgMax ArgMin AveragePool BatchNormalization CumSum GlobalAveragePool GlobalMaxPool GroupNormalization
InstanceNormalization LayerNormalization LogSoftmax LpNormalization MaxPool NonZero ReduceL1 ReduceL2 ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RMSNormalization Softmax TopK
com.microsoft.SkipLayerNormalization
"""
MOVES, ELEMENTWISE, REDUCING = (frozenset(names.split()) for names in (_MOVES, _ELEMENTWISE, _REDUCING))


def _product(left: int = 0, right: int = 1) -> Macs:
    """Of matrices (..., M, K) and (..., K, N), at these inputs."""

    def macs(node: NodeProto, inputs: list[Shape]) -> int:
        a, b = inputs[left], inputs[right]
        a, b = (a if len(a) > 1 else (1, *a)), (b if len(b) > 1 else (*b, 1))
        if attribute(node, "transA"):
            a = (*a[:-2], a[-1], a[-2])
        if attribute(node, "transB"):
            b = (*b[:-2], b[-1], b[-2])
        return _broadcast(a[:-2], b[:-2]) * a[-2] * a[-1] * b[-1]

    return macs


def _broadcast(a: Shape, b: Shape) -> int:
    longest = max(len(a), len(b))
    pairs = zip((1,) * (longest - len(a)) + a, (1,) * (longest - len(b)) + b, strict=True)
    return math.prod(max(pair) for pair in pairs)


def _convolution(weight: int = 1) -> Macs:
    """Every output element sums one filter: (out, in/group, *kernel) are the weight's axes."""

    def macs(node: NodeProto, inputs: list[Shape]) -> int:
        return math.prod(inputs[-1]) * math.prod(inputs[weight][1:])

    return macs


def _transposed(node: NodeProto, inputs: list[Shape]) -> int:
    """Every input element goes through one filter: (in, out/group, *kernel)."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _attention(node: NodeProto, inputs: list[Shape]) -> int:
    """Queries by keys and weights by values: (B, N, width) or (B, heads, N, width)."""
    query, key, output = inputs[0], inputs[1], inputs[-1]
    if not key or len(query) not in (3, 4):  # packed into one tensor
        raise ValueError("packed inputs")
    return key[-2] * (math.prod(query) + math.prod(output))


def _einsum(node: NodeProto, inputs: list[Shape]) -> int:
    """The product of all axes that occur, which is what a naive evaluation of two operands takes."""
    text = next(found.s.decode() for found in node.attribute if found.name == "equation").replace(" ", "")
    terms = text.partition("->")[0].split(",")
    if "." in text or len(terms) != 2:
        raise ValueError(text)
    extents: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=False):
        for letter, extent in zip(term, shape, strict=True):
            extents[letter] = max(extents.get(letter, 1), extent)
    return math.prod(extents.values())


MACS: dict[str, Macs] = {
    "MatMul": _product(),
    "Gemm": _product(),
    "MatMulInteger": _product(),
    "QLinearMatMul": _product(0, 3),
    "Einsum": _einsum,
    "Conv": _convolution(),
    "ConvInteger": _convolution(),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    "Attention": _attention,
    f"{CONTRIB}.FusedMatMul": _product(),
    f"{CONTRIB}.MultiHeadAttention": _attention,
}
"""Operator → its multiply-accumulates, from the node and the shapes of its inputs and, last, its output."""

WEIGHT_INPUT = {"QLinearMatMul": 3, "QLinearConv": 3}
"""Where the second operand is not input 1."""

KINDS = ("weights", "activations", "positions")
"""What is multiplied with activations: stored weights; other activations, as in attention and the mask product; stored
tables with a matrix for each position, as SAM's relative positions have."""


def node_macs(kind: str, node: NodeProto, found: Shapes) -> int | None:
    """Multiply-accumulates of a node; None if a shape is missing or the operator is used in a way not known here."""
    shapes = [found.shapes.get(name) if name else () for name in (*node.input, node.output[0])]
    if shapes[0] is None or shapes[-1] is None or shapes[WEIGHT_INPUT.get(kind, 1)] is None:
        return None
    try:
        return MACS[kind](node, [shape or () for shape in shapes])
    except ValueError:
        return None


def product_kind(kind: str, node: NodeProto, found: Shapes) -> str:
    """One of `KINDS`."""
    right = node.input[WEIGHT_INPUT.get(kind, 1)]
    left = node.input[0]
    if right not in found.constants:
        return "weights" if left in found.constants else "activations"
    return "positions" if _by_position(kind, node, found.shapes[left], found.shapes[right]) else "weights"


def _by_position(kind: str, node: NodeProto, left: Shape, table: Shape) -> bool:
    """Whether a stored operand has a matrix for each place along an axis that the activations have too."""
    if kind == "Einsum":
        text = next(found.s.decode() for found in node.attribute if found.name == "equation").replace(" ", "")
        terms, _, output = text.partition("->")
        a, b = terms.split(",")[:2]
        return any(letter in a and letter in output for letter in b)
    if kind not in ("MatMul", f"{CONTRIB}.FusedMatMul"):
        return False
    shared = zip(reversed(left[:-2]), reversed(table[:-2]), strict=False)
    return any(mine == theirs > 1 for mine, theirs in shared)
