"""Explicit quantization: QuantizeLinear and DequantizeLinear around the layers of a graph, symmetric, zero point 0.

int8 quantizes the layers. fp8 (E4M3) also quantizes both products of each attention: there the scale of a softmax is
1/448, and the pair stands directly before the product, behind whatever scales or transposes its factor, because only
so do compilers make one fused kernel of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from onnx import helper

from edgeseg.errors import BuildError

from . import graph as graphs
from . import smooth
from .integers import KINDS, Kind
from .net import Net
from .ranges import GraphRanges
from .sites import Layer, Product, Sites, find_sites, require_sites

T = TypeVar("T")


@dataclass(frozen=True)
class Inserted:
    """What was quantized.

    Attributes:
        layers: how many. `left_out`: those that stay as they are on request.
        attentions: those whose products are quantized too.
        tensors: activations with a pair of nodes, which all who read them share.
        smoothed: groups of norms that took factors up.
    """

    layers: int
    left_out: int
    attentions: int
    tensors: int
    smoothed: int


def insert(net: Net, ranges: GraphRanges, precision: str = "int8", leave_out: Collection[str] = ()) -> Inserted:
    """Quantize a graph in place; everything that is no layer stays as it is.

    Args:
        net: an fp32 graph; for fp8 of opset 19 or later.
        ranges: of its sites.
        precision: "int8" or "fp8".
        leave_out: names of nodes (`find_sites`) that stay as they are.

    Raises:
        BuildError: the graph has no layers, or the ranges are of another graph.
    """
    sites = require_sites(find_sites(net.model, net.within), net.name)
    smoothed = _smooth(net, ranges, sites)
    work = _Inserter(net, KINDS[precision], set(leave_out))
    for site in sites.layers:
        found = _known(net, ranges.sites, site.name)
        work.layers(site.tensor, found.limit if precision == "int8" else found.largest, site.layers)
    attentions = _attentions(net, ranges, sites, work) if precision == "fp8" else 0
    work.finish()
    layers = [layer for site in sites.layers for layer in site.layers]
    left = sum(layer.node in leave_out for layer in layers)
    return Inserted(len(layers) - left, left, attentions, work.tensors, smoothed)


def _smooth(net: Net, ranges: GraphRanges, sites: Sites) -> int:
    found = [group for group in smooth.find_groups(net.graph, sites) if group.name in ranges.smoothing]
    for group in found:
        factors = np.array(ranges.smoothing[group.name].factors, np.float32)
        if factors.shape != net.weight(group.weights[0]).shape[:1]:
            raise _misfit(net, f"the smoothing of {group.name} has {factors.size} factors")
        smooth.fold(net, group, factors)
    if len(found) != len(ranges.smoothing):
        raise _misfit(net, "they smooth norms that the graph does not have")
    return len(found)


def _attentions(net: Net, ranges: GraphRanges, sites: Sites, work: _Inserter) -> int:
    limits = {tensor: _known(net, ranges.peaks, name) for tensor, name in sites.operands().items()}
    pairs = list(zip(sites.attentions[::2], sites.attentions[1::2], strict=True))
    return sum(work.attention(pair, limits) for pair in pairs)


def _known(net: Net, found: Mapping[str, T], name: str) -> T:
    if name not in found:
        raise _misfit(net, f"they do not hold {name}")
    return found[name]


def _misfit(net: Net, found: str) -> BuildError:
    todo = "calibrate this bundle with --images"
    return BuildError(f"quantize the graph {net.name}", f"the ranges are of another graph: {found}", todo)


class _Inserter:
    """New nodes are kept by what they give, and go in front of the first node that reads it."""

    def __init__(self, net: Net, kind: Kind, leave_out: set[str]) -> None:
        self._net, self._kind, self._leave_out = net, kind, leave_out
        self._nodes = {node.name: node for node in net.graph.node}
        self._new: dict[str, list[onnx.NodeProto]] = {}
        self._activations: dict[str, str] = {}  # tensor → what its DequantizeLinear gives
        self._weights: dict[str, str] = {}

    @property
    def tensors(self) -> int:
        """Activations that are quantized."""
        return len(self._activations)

    def layers(self, tensor: str, limit: float, layers: Iterable[Layer]) -> None:
        """Quantize a tensor for those who read it, and their weights."""
        for layer in layers:
            if layer.node not in self._leave_out:
                node = self._nodes[layer.node]
                node.input[0] = self._activation(tensor, self._kind.scale(limit))
                node.input[1] = self._weight(layer)

    def attention(self, pair: tuple[Product, Product], limits: Mapping[str, float]) -> bool:
        """Quantize both sides of both products, unless one is left out."""
        if any(product.node in self._leave_out for product in pair):
            return False
        for product in pair:
            node = self._nodes[product.node]
            for side, tensor in enumerate(node.input):
                share = product.shares and side == 0
                node.input[side] = self._activation(tensor, self._kind.scale(1.0 if share else limits[tensor]))
        return True

    def finish(self) -> None:
        """Put the new nodes into the graph."""
        order = []
        for node in self._net.graph.node:
            order += [new for name in node.input for new in self._new.pop(name, ())]
            order.append(node)
        graphs.replace_nodes(self._net.graph, order)
        self._net.drop_unread_weights()

    def _activation(self, tensor: str, scale: smooth.Float32) -> str:
        if tensor not in self._activations:
            constants = [self._net.set_weight(f"{tensor}_scale", scale), self._zero(())]
            quantized, result = f"{tensor}_{self._kind.name}", f"{tensor}_dequantized"
            quantize = helper.make_node("QuantizeLinear", [tensor, *constants], [quantized], f"{tensor}_quantize")
            back = helper.make_node("DequantizeLinear", [quantized, *constants], [result], f"{tensor}_dequantize")
            self._new[result] = [quantize, back]
            self._activations[tensor] = result
        return self._activations[tensor]

    def _weight(self, layer: Layer) -> str:
        name = layer.weight
        if name not in self._weights:
            array = self._net.weight(name)
            scale = self._kind.weight_scale(array, layer.axis)
            stored = self._net.set_weight(f"{name}_{self._kind.name}", self._kind.stored(array, scale, layer.axis))
            inputs = [stored, self._net.set_weight(f"{name}_scale", scale), self._zero(scale.shape)]
            result = f"{name}_dequantized"
            node = helper.make_node("DequantizeLinear", inputs, [result], f"{name}_dequantize", axis=layer.axis)
            self._new[result] = [node]
            self._weights[name] = result
        return self._weights[name]

    def _zero(self, shape: tuple[int, ...]) -> str:
        """The zero point of a scale of this shape; all of one shape share it."""
        name = "_".join(["zero", self._kind.name, *map(str, shape)])
        return self._net.set_weight(name, np.zeros(shape, self._kind.dtype))
