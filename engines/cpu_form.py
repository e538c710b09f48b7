"""The form of a graph that onnxruntime runs best on a CPU: attention as one contrib operator.

MatMul, [Add,] Softmax, MatMul between splitting and merging the heads becomes com.microsoft's MultiHeadAttention: no
score matrix is stored without a bias, one less with one, and the transposes of the heads go away. Weights stay where
they are. Only long attentions are rewritten: of the 1600 tokens of SAM's global blocks at 640x640 the form saves almost
half the time, of 401 tokens nothing that was measurable, and it rounds differently. The quantized layers of a plain
int8 graph become integer products (`cpu_int8.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from .cpu_int8 import DOMAIN, add_domain, drop_unread, live, to_integer_products

LEAST_TOKENS = 1024  # queries and keys of an attention that is worth it
_SPLIT, _TURN, _SPLIT_AND_TURN = [0, 2, 1, 3], [0, 1, 3, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class _Heads:
    """Heads (B, h, N, d) made by a Reshape and a Transpose from `tokens` (B, N, h*d), times `scale`; N is `length`."""

    tokens: str
    heads: int
    length: int
    scale: float = 1.0


class _Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, model: ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        small = (tensor for tensor in model.graph.initializer if not tensor.external_data)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in small}

    def made(self, name: str, kind: str) -> NodeProto | None:
        """The node that makes a tensor, if it is of this kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def read(self, name: str, kind: str) -> NodeProto | None:
        """The one node that reads a tensor, if it is of this kind."""
        nodes = self.readers.get(name, [])
        return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None

    def heads(self, name: str) -> _Heads | None:
        """What a tensor of heads was made from."""
        scaled = self.made(name, "Mul")
        if scaled is not None:
            factor = self.constants.get(scaled.input[1])
            inner = self.heads(scaled.input[0])
            if inner is None or factor is None or factor.size != 1:
                return None
            return replace(inner, scale=inner.scale * float(factor.reshape(())))
        return self._split(name, _SPLIT)

    def keys(self, name: str) -> _Heads | None:
        """What transposed heads (B, h, d, N) were made from; exporters merge the two transposes where they can."""
        turned = self.made(name, "Transpose")
        if turned is not None and permutation(turned) == _TURN:
            return self.heads(turned.input[0])
        return self._split(name, _SPLIT_AND_TURN)

    def _split(self, name: str, order: list[int]) -> _Heads | None:
        turned = self.made(name, "Transpose")
        if turned is None or permutation(turned) != order:
            return None
        shaped = self.made(turned.input[0], "Reshape")
        shape = self.constants.get(shaped.input[1]) if shaped is not None else None
        if shaped is None or shape is None or shape.size != 4:
            return None
        return _Heads(shaped.input[0], int(shape[2]), int(shape[1]))


def to_cpu_form(model: ModelProto) -> int:
    """Rewrite `model`, whose weights need not be loaded, in place; returns how many patterns were found."""
    return fuse_attentions(model) + to_integer_products(model)


def fuse_attentions(model: ModelProto) -> int:
    """Long attentions as one node each; returns how many."""
    graph = _Graph(model)
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    fused = [found for node in softmaxes if (found := _fuse(graph, node)) is not None]
    if not fused:
        return 0
    replaced = {name: node for node in fused for name in node.output}
    nodes = [replaced.pop(node.output[0], node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(live(nodes, {value.name for value in model.graph.output}))
    add_domain(model)
    drop_unread(model.graph)
    return len(fused)


def permutation(node: NodeProto) -> list[int]:
    """The order of axes of a Transpose."""
    return [value for attribute in node.attribute if attribute.name == "perm" for value in attribute.ints]


def _fuse(graph: _Graph, softmax: NodeProto) -> NodeProto | None:
    """The contrib node that makes what merging the heads after this Softmax makes; None if the pattern is not whole."""
    scores, bias = graph.made(softmax.input[0], "MatMul"), ""
    added = graph.made(softmax.input[0], "Add")
    if added is not None:
        scores, bias = graph.made(added.input[0], "MatMul"), added.input[1]
    weighted = graph.read(softmax.output[0], "MatMul")
    merged = graph.read(weighted.output[0], "Transpose") if weighted is not None else None
    if scores is None or weighted is None or merged is None:
        return None
    if weighted.input[0] != softmax.output[0] or permutation(merged) != _SPLIT:
        return None
    end = graph.read(merged.output[0], "Reshape")
    q, k, v = graph.heads(scores.input[0]), graph.keys(scores.input[1]), graph.heads(weighted.input[1])
    if end is None or q is None or k is None or v is None or v.scale != 1.0:
        return None
    if min(q.length, k.length) < LEAST_TOKENS:
        return None
    inputs = [q.tokens, k.tokens, v.tokens] + (["", "", bias] if bias else [])
    name = softmax.name.replace("Softmax", "MultiHeadAttention")
    scale = q.scale * k.scale
    return helper.make_node(
        "MultiHeadAttention",
        inputs,
        [end.output[0]],
        name,
        domain=DOMAIN,
        num_heads=q.heads,
        scale=np.float32(scale).item(),
    )
