"""The blocks of a network: its nodes by the scopes in their names, as the network is written, and what each costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from ..net import Net
from ..sites import Sites

REST = "rest"
"""The block of nodes whose names have no scope."""

_NUMBERED = re.compile(r"\.\d+$")


@dataclass(frozen=True)
class Block:
    """Nodes that go to another precision together.

    Attributes:
        key: graph and block, "sam/blocks.3": the same at every canvas.
        layers: how many products with a weight. `macs`: multiply-accumulates of these, for one image.
    """

    key: str
    layers: int
    macs: int

    @property
    def graph(self) -> str:
        """The graph that it is a part of."""
        return graph_of(self.key)


def block_key(graph: str, node: str) -> str:
    """The key of a node's block.

    The block is the scope up to its first numbered part, else the first part of the scope: of
    "/blocks.3/attn/q/MatMul" it is "blocks.3", of "/tail/mlp/c_fc/MatMul" it is "tail".
    """
    scope = node.strip("/").split("/")[:-1]
    numbered = next((count for count, part in enumerate(scope, start=1) if _NUMBERED.search(part)), 1)
    return f"{graph}/{'/'.join(scope[:numbered]) or REST}"


def graph_of(key: str) -> str:
    """The graph in a block's key."""
    return key.partition("/")[0]


def quantized_blocks(net: Net, sites: Sites) -> list[Block]:
    """The blocks that hold products to quantize, in the order of the graph."""
    nodes = {layer.node for site in sites.layers for layer in site.layers}
    order = [block_key(net.name, node.name) for node in net.graph.node if node.name in nodes]
    return _blocks(net, sites, order)


def all_blocks(net: Net, sites: Sites) -> list[Block]:
    """Every block, in the order of the graph."""
    return _blocks(net, sites, [block_key(net.name, node.name) for node in net.graph.node])


def _blocks(net: Net, sites: Sites, order: list[str]) -> list[Block]:
    costs = macs(net.model, sites)
    found: dict[str, list[int]] = {key: [] for key in order}
    for node, cost in costs.items():
        key = block_key(net.name, node)
        if key in found:
            found[key].append(cost)
    return [Block(key, len(mine), sum(mine)) for key, mine in found.items()]


def macs(model: onnx.ModelProto, sites: Sites) -> dict[str, int]:
    """Layer → its multiply-accumulates; a dynamic axis counts as one."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: _extents(value) for value in (*graph.value_info, *graph.output)}
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    return {
        layer.node: _macs(nodes[layer.node], shapes, weights[layer.weight])
        for site in sites.layers
        for layer in site.layers
    }


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> int:
    """Every value of the result is a sum over the weight's input channels, and in a Conv over its window."""
    terms = weight[0] if node.op_type == "MatMul" else math.prod(weight[1:])
    return math.prod(shapes.get(node.output[0], (0,))) * terms


def _extents(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)
