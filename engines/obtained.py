"""The precision that the compiler gave each product of a graph, against the one that the graph asks for.

A graph says what it asks: a MatMul or Conv whose two operands come from DequantizeLinear is to be computed in their
type, any other in the type of its result. An engine says what it got: the types that the layer which does a node reads.
Where several layers mention a node (its scale may be applied by the next one), the one that multiplies matrices counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, shape_inference

from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec, size_text

from .layers import Layer, is_attention

UNKNOWN = "unknown"
NAMED = 4  # nodes that a message names

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_MOVES = ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity")  # a weight behind them is still a weight
_WORDS = {"gemm": "GEMMs", "conv": "convolutions", "matmul": "products of activations"}
_ONNX_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_LAYER_TYPES = {
    "fp8": "fp8",
    "int8": "int8",
    "half": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float": "fp32",
    "fp32": "fp32",
}
_FLOATS = ("fp16", "bf16", "fp32")  # narrowest first
_MATRIX = re.compile(r"gemm|conv|correlation|matrix|matmul|innerproduct", re.IGNORECASE)
_FUSION = "runtime_fusion"
_OPAQUE = "myelin"  # TensorRT 8.6: a whole transformer in one layer that says nothing of its inside


@dataclass(frozen=True)
class Product:
    """A node that multiplies matrices. `kind`: "gemm", "conv", or "matmul" for two activations; `asked`: precision."""

    kind: str
    asked: str


def products(model: onnx.ModelProto) -> dict[str, Product]:
    """Every MatMul, Gemm and Conv of a graph by its name, but those of two constants; weights need not be loaded."""
    graph = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output, *graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    constant = {tensor.name: True for tensor in graph.initializer}
    for node in graph.node:  # in the order of the graph, so inputs are known
        moved = node.op_type in _MOVES and constant.get(node.input[0], False)
        constant |= dict.fromkeys(node.output, moved or node.op_type == "Constant")
    found = {}
    for node in graph.node:
        weights = [constant.get(name, False) for name in node.input[:2]]
        if node.op_type in _PRODUCTS and not all(weights):
            kind = "conv" if "Conv" in node.op_type else "gemm" if any(weights) else "matmul"
            found[node.name] = Product(kind, _asked(node, makers, types))
    return found


def _asked(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]) -> str:
    sources = [makers.get(name) for name in node.input[:2]]
    quantized = [source for source in sources if source is not None and source.op_type == "DequantizeLinear"]
    if len(quantized) == 2:
        return _ONNX_TYPES.get(types.get(quantized[0].input[0], 0), UNKNOWN)
    return _ONNX_TYPES.get(types.get(node.output[0], 0), UNKNOWN)


def obtained(names: Iterable[str], layers: Iterable[Layer]) -> dict[str, str]:
    """Node → the precision that an engine computes it in, `UNKNOWN` where the engine does not say."""
    mentions: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes or re.split(r"\s*\+\s*", re.sub(r"_myl\d+_\d+$", "", layer.name)):
            mentions.setdefault(node, []).append(layer)
    return {name: _of_layers(mentions.get(name, [])) for name in names}


def _of_layers(layers: list[Layer]) -> str:
    """What the layers that mention a node compute it in: those that multiply matrices, else whichever there are."""
    known = [layer for layer in layers if layer.kind.lower() != _OPAQUE]
    rank = min(map(_rank, known), default=0)
    found = {arithmetic(layer) for layer in known if _rank(layer) == rank}
    floats = [name for name in _FLOATS if name in found]
    return floats[-1] if floats else next(iter(sorted(found)), UNKNOWN)


def _rank(layer: Layer) -> int:
    if is_attention(layer) or _MATRIX.search(layer.kind):
        return 0
    return 1 if layer.kind == _FUSION else 2


def arithmetic(layer: Layer) -> str:
    """The precision that a layer multiplies in: that of its operands, or of the float one among them.

    A matrix product reads its operands first and what is added to it later. A fused kernel may cast what it reads:
    then it multiplies in the narrowest float type that is there.
    """
    operands = layer.inputs + layer.weights
    if is_attention(layer):
        operands = layer.inputs[:3]
    elif _rank(layer) == 0:
        operands = layer.inputs[:1] + (layer.weights[:1] or layer.inputs[1:2])
    names = {_LAYER_TYPES.get(kind.lower(), UNKNOWN) for kind in operands}
    if len(names) == 1:
        return names.pop()
    return next((name for name in _FLOATS if name in names), UNKNOWN)


def counts(wanted: Mapping[str, Product], got: Mapping[str, str], layers: list[Layer]) -> dict[str, dict[str, int]]:
    """Kind → precision → how many nodes; "attention" counts fused kernels, whose two products are in no other kind."""
    fused = [layer for layer in layers if is_attention(layer)]
    inside = {node for layer in fused for node in layer.nodes}
    found: dict[str, Counter[str]] = {"attention": Counter(arithmetic(layer) for layer in fused)}
    for name, product in wanted.items():
        if not (product.kind == "matmul" and name in inside):
            found.setdefault(product.kind, Counter())[got[name]] += 1
    return {
        kind: dict(sorted(found[kind].items())) for kind in ("gemm", "conv", "attention", "matmul") if found.get(kind)
    }


def differences(wanted: Mapping[str, Product], got: Mapping[str, str]) -> list[str]:
    """One sentence per kind and pair of precisions in which the engine is not what the graph asks for."""
    sentences = []
    wrong = Counter((p.kind, p.asked, got[n]) for n, p in wanted.items() if got[n] not in (p.asked, UNKNOWN))
    for (kind, asked, given), count in sorted(wrong.items()):
        all_ = sum((product.kind, product.asked) == (kind, asked) for product in wanted.values())
        names = [n for n, p in wanted.items() if (p.kind, p.asked, got[n]) == (kind, asked, given)]
        more = f" and {count - NAMED} more" if count > NAMED else ""
        named = ", ".join(names[:NAMED]) + more
        sentences.append(f"asked {asked}, got {given} in {count} of {all_} {_WORDS[kind]}: {named}")
    return sentences


def refused(layers: Mapping[str, Mapping[str, int]], precision: str) -> list[str]:
    """The same where the compiler may stay above a precision that it is allowed: only if it never took it."""
    found = layers.get("gemm", {})
    if precision not in ("fp16", "int8") or not found or precision in found or UNKNOWN in found:
        return []
    return [f"allowed {precision}, got {', '.join(found)} in all GEMMs"]


def refuse(spec: GraphSpec, sentences: list[str]) -> None:
    """Raise a BuildError if there are differences."""
    if sentences:
        todo = "lift these layers with `edgeseg quantize --budget`, or weigh them as they are with --precision auto"
        raise BuildError(
            f"build {spec.name} at {size_text(spec.canvas)} in {spec.precision}", "; ".join(sentences), todo
        )
