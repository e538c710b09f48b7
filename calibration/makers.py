"""How the graphs of one precision are made, group by group: all canvases of a graph share one weight file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec, size_text

from .fp16 import Conversion, to_half
from .gather import weights_digest
from .islands import wide_stream
from .net import Net
from .opset import raise_opset
from .qdq import Inserted, insert
from .ranges import GraphRanges, Ranges
from .sites import find_sites
from .tap import load_net
from .weights import WeightWriter

KEPT_FP32 = frozenset({"score", "rank", "text"})
"""Graphs that stay as they are: `score` works at logits of 100 and probabilities of 1e-8, `rank` chooses classes by
cosines that differ little and costs next to nothing, and `text` runs once per vocabulary, where time matters least and
every later result depends on it."""

Stage = Callable[[str], Path]


@dataclass(frozen=True)
class Quantized:
    """One graph of the new precision.

    Attributes:
        graph: its entry. `conversion`: to fp16; None for a graph whose body stays fp32.
        inserted: what was quantized; None for a graph in which nothing is.
    """

    graph: GraphSpec
    conversion: Conversion | None
    inserted: Inserted | None = None


class Maker(Protocol):
    """Makes the graphs of one precision."""

    def group(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        """Write all canvases of one graph; yields the forms of one canvas at a time."""
        ...


class Halves:
    """fp16 graphs.

    Args:
        bundle: holds the masters.
        ranges: of its graphs, whose peaks tell where fp16 is too narrow; None if nothing was measured.
    """

    def __init__(self, bundle: Bundle, ranges: Ranges | None = None) -> None:
        self._bundle, self._ranges = bundle, ranges.graphs if ranges else {}

    def group(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        """See `Maker`."""
        if name in KEPT_FP32:
            yield from ([Quantized(dataclasses.replace(graph, precision="fp16"), None)] for graph in group)
            return
        data = f"graphs/fp16/{name}.bin"
        with WeightWriter(stage(data)) as writer:
            for graph in group:
                net = load_net(self._bundle, graph)
                wide = wide_tensors(net, self._ranges.get(name))
                conversion = to_half(net.model, net, writer, name, wide)
                spec = _spec(graph, "fp16", f"graphs/fp16/{name}-{size_text(graph.canvas)}.onnx", data)
                stage(spec.file).write_bytes(net.model.SerializeToString())
                yield [Quantized(spec, conversion)]


class Eights:
    """Graphs of eight bits: int8 in both forms, fp8 typed. What has no ranges is fp16 if typed, and fp32 if plain.

    Args:
        bundle: holds the masters.
        precision: "int8" or "fp8".
        ranges: of its graphs.
        leave_out: graph → nodes that are not quantized.
    """

    def __init__(
        self, bundle: Bundle, precision: str, ranges: Ranges, leave_out: Mapping[str, Collection[str]]
    ) -> None:
        self._bundle, self._precision, self._ranges, self._leave_out = bundle, precision, ranges.graphs, leave_out

    def group(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        """See `Maker`."""
        if name in self._ranges:
            yield from self._quantized(name, group, stage)
            return
        for graph, [half] in zip(group, self._halves(name, group, stage), strict=True):
            plain = Quantized(dataclasses.replace(graph, precision=self._precision, form="plain"), None)
            typed = dataclasses.replace(half, graph=dataclasses.replace(half.graph, precision=self._precision))
            same = typed.graph.file == graph.file
            yield [typed] if same or self._precision != "int8" else [typed, plain]

    def _halves(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        """The fp16 graphs that the bundle has, or new ones in their place."""
        known = {(g.name, g.canvas): g for g in self._bundle.manifest.graphs if g.precision == "fp16"}
        if all((name, graph.canvas) in known for graph in group):
            return ([Quantized(known[name, graph.canvas], None)] for graph in group)
        return Halves(self._bundle).group(name, group, stage)  # it has no ranges

    def _quantized(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        data = f"graphs/{self._precision}/{name}.bin"
        with WeightWriter(stage(data)) as writer:
            for graph in group:
                yield list(self._forms(graph, writer, data, stage))

    def _forms(self, graph: GraphSpec, writer: WeightWriter, data: str, stage: Stage) -> Iterator[Quantized]:
        net, ranges = load_net(self._bundle, graph), self._ranges[graph.name]
        wide = wide_tensors(net, ranges)
        if self._precision == "fp8":
            raise_opset(net)
        inserted = insert(net, ranges, self._precision, self._leave_out.get(graph.name, ()))
        file = f"graphs/{self._precision}/{graph.name}-{size_text(graph.canvas)}"
        if self._precision == "int8":
            spec = dataclasses.replace(_spec(graph, "int8", f"{file}.plain.onnx", data), form="plain")
            stage(spec.file).write_bytes(written(net, writer).SerializeToString())
            yield Quantized(spec, None, inserted)
        raise_opset(net)
        conversion = to_half(net.model, net, writer, net.name, wide)
        spec = _spec(graph, self._precision, f"{file}.onnx", data)
        stage(spec.file).write_bytes(net.model.SerializeToString())
        yield Quantized(spec, conversion, inserted)


def written(net: Net, writer: WeightWriter) -> onnx.ModelProto:
    """A copy of the net's model whose weights are in the writer's file."""
    model = onnx.ModelProto()
    model.CopyFrom(net.model)
    weights = [writer.tensor(tensor.name, net.read(tensor)) for tensor in net.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model


def wide_tensors(net: Net, ranges: GraphRanges | None) -> list[str]:
    """Tensors of the residual stream that were seen beyond fp16's safe range.

    Raises:
        BuildError: the ranges are of other weights.
    """
    if ranges is None:
        return []
    if weights_digest(net, find_sites(net.model, net.within)) != ranges.weights:
        found = "the ranges were calibrated with other weights than the bundle holds"
        raise BuildError(f"quantize the graph {net.name}", found, "calibrate this bundle with --images")
    return wide_stream(net.graph, ranges.peaks)


def _spec(graph: GraphSpec, precision: str, file: str, data: str) -> GraphSpec:
    return dataclasses.replace(graph, precision=precision, file=file, data=(data,))
