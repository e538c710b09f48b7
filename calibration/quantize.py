"""A bundle's fp32 graphs as graphs of a lower precision, added to the same bundle."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeseg.bundle import Bundle
from edgeseg.errors import BuildError
from edgeseg.schema import GraphSpec, size_text

from .fp16 import Conversion, to_half
from .weights import WeightReader, WeightWriter

KEPT_FP32 = frozenset({"score", "text"})
"""Graphs that stay as they are: `score` works at logits of 100 and probabilities of 1e-8, and `text` runs once per
vocabulary, where time matters least and every later result depends on it."""

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Quantized:
    """One graph of the new precision; `conversion` is None for a graph that stays as it is."""

    graph: GraphSpec
    conversion: Conversion | None


def masters(bundle: Bundle) -> list[GraphSpec]:
    """The fp32 graphs, those that share weights next to each other. Raises BuildError if there are none."""
    graphs = [graph for graph in bundle.manifest.graphs if graph.precision == "fp32"]
    if not graphs:
        found = f"the bundle holds only {', '.join(bundle.precisions())} graphs"
        raise BuildError(f"quantize {bundle.path}", found, "use the bundle that `edgeseg export` wrote")
    return sorted(graphs, key=lambda graph: graph.name)


def quantize_bundle(bundle: Bundle, watch: Watch) -> list[Quantized]:
    """Add fp16 graphs to a bundle, replacing earlier ones; all of them or, after an error, none.

    Args:
        bundle: holds the fp32 graphs.
        watch: called with the number of graphs done and of all, once per graph and at the end.
    """
    done: list[Quantized] = []
    graphs = masters(bundle)
    with bundle.edit() as edit:
        for name, group in itertools.groupby(graphs, key=lambda graph: graph.name):
            for item in _group(bundle, name, list(group), edit.stage):
                watch(len(done), len(graphs))
                done.append(item)
        for item in done:
            edit.add_graph(item.graph)
    watch(len(done), len(graphs))
    return done


def _group(bundle: Bundle, name: str, group: list[GraphSpec], stage: Callable[[str], Path]) -> Iterable[Quantized]:
    if name in KEPT_FP32:
        return [Quantized(dataclasses.replace(graph, precision="fp16"), None) for graph in group]
    return _convert_group(bundle, name, group, stage)


def _convert_group(
    bundle: Bundle, name: str, group: list[GraphSpec], stage: Callable[[str], Path]
) -> Iterator[Quantized]:
    """All canvases of one graph, into one weight file."""
    data = f"graphs/fp16/{name}.bin"
    with WeightWriter(stage(data)) as writer:
        for graph in group:
            file = f"graphs/fp16/{name}-{size_text(graph.canvas)}.onnx"
            conversion = _convert(bundle, graph, writer, stage(file))
            spec = dataclasses.replace(graph, precision="fp16", file=file, data=(data,))
            yield Quantized(spec, conversion)


def _convert(bundle: Bundle, graph: GraphSpec, writer: WeightWriter, target: Path) -> Conversion:
    path = bundle.graph_files(graph)
    model = onnx.load(path, load_external_data=False)
    conversion = to_half(model, WeightReader([bundle.file(name) for name in graph.data]), writer, graph.name)
    target.write_bytes(model.SerializeToString())
    return conversion
