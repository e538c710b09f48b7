"""The runtime's own chain on the fp32 graphs, with the tensors to be quantized tapped on their way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeseg.backends import get_backend
from edgeseg.backends.base import Array, Session, Stream, Tensor
from edgeseg.bundle import Bundle
from edgeseg.chain import Chain, Link
from edgeseg.pipelines import get_pipeline
from edgeseg.schema import GraphSpec, Size, TensorSpec, size_text

from .net import Net
from .observe import observed
from .photos import Photo
from .sites import Sites, find_sites
from .weights import WeightReader

PARTS = {"head": r"/pixel_decoder/transformer/.*/(value_proj|output_proj|linear[12])/"}
"""Graphs of which a part is quantized, and a pattern in the names of its nodes. Of EBSeg's head that is the perceptrons
and the values of the pixel decoder's transformer. Its other products say where that transformer looks and which pixel
belongs to which mask, where rounding shows, and cost less."""

Sink = Callable[[str, Mapping[str, Array]], None]
"""Takes the name of a graph, and its values by the names of sites and peaks."""


def image_graphs(bundle: Bundle, canvas: Size) -> list[GraphSpec]:
    """The fp32 graphs that need nothing but the image, in the order of the chain."""
    pipeline = get_pipeline(bundle.manifest)
    known, found = set(pipeline.image_feed(np.zeros((*canvas, 3), np.uint8), canvas, canvas)), []
    for name in pipeline.graphs:
        graph = bundle.graph(name, "fp32", canvas)
        if {tensor.name for tensor in graph.inputs} <= known:
            found.append(graph)
            known |= {tensor.name for tensor in graph.outputs}
    return found


def load_net(bundle: Bundle, graph: GraphSpec) -> Net:
    """A graph of the bundle, its weights to be read where they lie."""
    model = onnx.load(bundle.graph_files(graph), load_external_data=False)
    reader = WeightReader([bundle.file(name) for name in graph.data])
    return Net(model, reader, graph.name, PARTS.get(graph.name, ""))


class TappedChain:
    """The chain of one canvas.

    Args:
        bundle: holds the fp32 graphs.
        canvas: of the images.
        tapped: names of the graphs to tap; those after the last of them are not run.
        folder: for files that are needed while this lasts, on the bundle's disk.
        threads: CPU threads; None takes one per physical core.
    """

    def __init__(
        self, bundle: Bundle, canvas: Size, tapped: set[str], folder: Path, *, threads: int | None = None
    ) -> None:
        self._pipeline = get_pipeline(bundle.manifest)
        self._backend = get_backend("onnxruntime", threads)
        self.canvas = canvas
        graphs = image_graphs(bundle, canvas)
        last = max(index for index, graph in enumerate(graphs) if graph.name in tapped)
        self._taps: list[_Tap] = []
        links = []
        for graph in graphs[: last + 1]:
            if graph.name not in tapped:
                links.append(Link(graph, self._backend.open(bundle.graph_files(graph), graph)))
                continue
            self._taps.append(self._tap(bundle, graph, folder))
            links.append(Link(graph, self._taps[-1]))
        self._chain = Chain(links)

    def run(self, photo: Photo, sink: Sink) -> None:
        """Run one image; `sink` is called once for each tapped graph."""
        for tap in self._taps:
            tap.sink = sink
        placement = photo.placement
        self._chain.run(self._pipeline.image_feed(photo.rgb(), placement.valid, placement.canvas), ())

    def close(self) -> None:
        """Free the networks."""
        for link in self._chain.order:
            link.session.close()

    def _tap(self, bundle: Bundle, graph: GraphSpec, folder: Path) -> _Tap:
        net = load_net(bundle, graph)
        model, names = observed(net.model, find_sites(net.model, net.within))
        path = folder / f"{graph.name}-{size_text(graph.canvas)}.onnx"
        path.write_bytes(model.SerializeToString())
        for data in graph.data:
            beside(bundle.file(data), folder)
        outputs = tuple(TensorSpec(value.name, "float32", ()) for value in model.graph.output)
        return _Tap(self._backend.open(path, replace(graph, outputs=outputs)), graph, names)


class _Tap:
    """A session that gives its graph's outputs, and hands the other tensors to `sink`."""

    def __init__(self, session: Session, graph: GraphSpec, names: Mapping[str, str]) -> None:
        self._session, self._graph, self._names = session, graph, names
        self._outputs = {tensor.name for tensor in graph.outputs}
        self.sink: Sink = lambda *_: None

    def upload(self, array: Array) -> Tensor:
        return self._session.upload(array)

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Any]:
        outputs = self._session.run(inputs, stream)
        arrays = {name: self._session.download(outputs[output]) for output, name in self._names.items()}
        self.sink(self._graph.name, arrays)
        return {name: tensor for name, tensor in outputs.items() if name in self._outputs}

    def download(self, tensor: Tensor) -> Array:
        return self._session.download(tensor)

    def close(self) -> None:
        self._session.close()


def beside(source: Path, folder: Path) -> None:
    """The weight file under its own name in `folder`: a second name for it where the disk can, else a copy."""
    target = folder / source.name
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sites_of(bundle: Bundle, canvas: Size, names: set[str]) -> dict[str, tuple[Net, Sites]]:
    """The graphs of these names and their sites, as they are at this canvas."""
    nets = {graph.name: load_net(bundle, graph) for graph in image_graphs(bundle, canvas) if graph.name in names}
    return {name: (net, find_sites(net.model, net.within)) for name, net in nets.items()}
