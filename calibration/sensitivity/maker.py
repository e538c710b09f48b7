"""The graphs of a mixture, written into a bundle as its precision "mixed"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edgeseg.bundle import Bundle
from edgeseg.schema import GraphSpec, size_text

from ..makers import Eights, Quantized, Stage
from ..ranges import Ranges
from ..sites import find_sites
from ..tap import load_net
from ..weights import WeightWriter
from .blocks import all_blocks
from .mixture import Mixer, Mixture
from .options import MIXED


class Mixtures:
    """Graphs of precision "mixed"; of those made of int8 both forms. See `makers.Maker`.

    A graph that is all fp16, or all fp32, is the one that the bundle has.

    Args:
        bundle: holds the masters.
        kind: what quantized blocks are: "int8", "fp8", or "fp16" if there are none.
        ranges: of the bundle's graphs; None without any.
        mixture: of the typed graphs; in plain ones, what is not quantized is fp32.
    """

    def __init__(self, bundle: Bundle, kind: str, ranges: Ranges | None, mixture: Mixture) -> None:
        self._bundle, self._mixture, self._plain = bundle, mixture, kind == "int8"
        self._mixer = Mixer(bundle, kind, ranges)
        self._kept = Eights(bundle, MIXED, Ranges(1, ranges.images, {}), {}) if ranges else None

    def group(self, name: str, group: list[GraphSpec], stage: Stage) -> Iterator[list[Quantized]]:
        """Write all canvases of one graph; yields the forms of one canvas at a time."""
        if name not in self._mixture.graphs:
            yield from ([Quantized(dataclasses.replace(graph, precision=MIXED), None)] for graph in group)
        elif self._all_half(group[0]) and self._kept is not None:
            for graph, forms in zip(group, self._kept.group(name, group, stage), strict=True):
                plain = dataclasses.replace(graph, precision=MIXED, form="plain")
                yield [*forms, Quantized(plain, None)] if self._plain else forms
        else:
            data = f"graphs/{MIXED}/{name}.bin"
            with WeightWriter(stage(data)) as writer:
                for graph in group:
                    yield list(self._forms(graph, writer, data, stage))

    def _all_half(self, graph: GraphSpec) -> bool:
        net = load_net(self._bundle, graph)
        keys = {block.key for block in all_blocks(net, find_sites(net.model, net.within))}
        return keys <= self._mixture.half and not self._mixture.quantizes(graph.name)

    def _forms(self, graph: GraphSpec, writer: WeightWriter, data: str, stage: Stage) -> Iterator[Quantized]:
        forms = {"typed": self._mixture}
        if self._plain:
            forms["plain"] = Mixture(self._mixture.quantized)
        for form, mixture in forms.items():
            if graph.name not in mixture.graphs:
                yield Quantized(dataclasses.replace(graph, precision=MIXED, form=form), None)
                continue
            suffix = ".plain" * (form == "plain")
            file = f"graphs/{MIXED}/{graph.name}-{size_text(graph.canvas)}{suffix}.onnx"
            made = self._mixer.make(graph, mixture, writer)
            stage(file).write_bytes(made.model.SerializeToString())
            spec = dataclasses.replace(graph, precision=MIXED, file=file, data=(data,), form=form)
            yield Quantized(spec, made.conversion, made.inserted)
