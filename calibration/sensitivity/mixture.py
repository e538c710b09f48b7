"""Graphs in which some blocks are quantized, some compute in fp16, and the rest is what the master is."""

from __future__ import annotations

import json
from dataclasses import dataclass

import onnx

from edgeseg.bundle import Bundle
from edgeseg.schema import GraphSpec

from ..fp16 import Conversion, to_half
from ..makers import wide_tensors, written
from ..opset import raise_opset
from ..qdq import Inserted, insert
from ..ranges import Ranges
from ..tap import load_net
from ..weights import WeightWriter
from .blocks import block_key, graph_of


@dataclass(frozen=True)
class Mixture:
    """Which blocks are of which precision, by their keys.

    Attributes:
        quantized: their products with weights are of eight bits.
        half: all else in them is fp16; in the others it is fp32.
    """

    quantized: frozenset[str] = frozenset()
    half: frozenset[str] = frozenset()

    @property
    def graphs(self) -> set[str]:
        """The graphs that are not as in fp32."""
        return {graph_of(key) for key in self.quantized | self.half}

    @property
    def name(self) -> str:
        """Equal for equal mixtures."""
        return json.dumps([sorted(self.quantized), sorted(self.half)])

    def quantizes(self, graph: str) -> bool:
        """Whether a block of this graph is quantized."""
        return any(graph_of(key) == graph for key in self.quantized)

    def halves(self, graph: str) -> bool:
        """Whether a block of this graph computes in fp16."""
        return any(graph_of(key) == graph for key in self.half)


@dataclass(frozen=True)
class Mixed:
    """A graph of a mixture, and what was done to make it so."""

    model: onnx.ModelProto
    inserted: Inserted | None
    conversion: Conversion | None


@dataclass(frozen=True)
class Mixer:
    """Makes graphs of mixtures.

    Attributes:
        bundle: holds the masters.
        kind: what quantized blocks are: "int8", "fp8", or "fp16" if there are none.
        ranges: of the bundle's graphs; None without any.
    """

    bundle: Bundle
    kind: str
    ranges: Ranges | None

    def make(self, graph: GraphSpec, mixture: Mixture, writer: WeightWriter) -> Mixed:
        """One graph, its weights in the writer's file.

        Raises:
            BuildError: the ranges are of other graphs.
        """
        net = load_net(self.bundle, graph)
        ranges = self.ranges.graphs.get(graph.name) if self.ranges else None
        wide = wide_tensors(net, ranges)
        keys = {node.name: block_key(graph.name, node.name) for node in net.graph.node}
        wide += [name for node in net.graph.node if keys[node.name] not in mixture.half for name in node.output]
        typed = mixture.halves(graph.name)
        inserted = None
        if typed or self.kind == "fp8":
            raise_opset(net)
        if mixture.quantizes(graph.name) and ranges is not None:
            others = [name for name, key in keys.items() if key not in mixture.quantized]
            inserted = insert(net, ranges, self.kind, others)
        if not typed:
            return Mixed(written(net, writer), inserted, None)
        conversion = to_half(net.model, net, writer, net.name, wide)
        return Mixed(net.model, inserted, conversion)
