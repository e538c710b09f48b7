"""Runs of the graphs alone, with inputs that are already made; and batches of images, where the graphs take them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeseg.backends.base import Array
from edgeseg.chain import Chain
from edgeseg.chains import Chains
from edgeseg.errors import InputError
from edgeseg.images import load
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement, place
from edgeseg.preprocess import resize_rgb
from edgeseg.schema import GraphSpec, Size, TensorSpec
from edgeseg.segmenter import Segmenter
from edgeseg.vocabulary import Vocabulary

from .effort import CHAIN, Stages
from .spans import HOST_CLOCK, Spans

INCLUDED = {
    CHAIN: "the networks' inputs from host memory to the results in host memory; no image is read or prepared",
    "upload": "inputs to the device; nothing on a CPU",
    "graphs": "all engines, from the first start to the last end",
    "download": "results from the device; nothing on a CPU",
}


@dataclass
class GraphRuns:
    """See the module's text.

    Args:
        chain: opened graphs.
        feed: their inputs.
        wanted: the tensors that are brought back.
    """

    chain: Chain
    feed: Mapping[str, Array]
    wanted: Collection[str]
    spans: Spans = field(default_factory=Spans)

    def once(self) -> Stages:
        """One run."""
        start_s = time.perf_counter()
        self.chain.run(self.feed, self.wanted, self.spans)
        total_ms = (time.perf_counter() - start_s) * 1e3
        return {CHAIN: total_ms, **self.spans.take()}

    def clock(self, stage: str) -> str:
        """What timed a stage."""
        return self.spans.clocks.get(stage, HOST_CLOCK)

    def part_of(self, stage: str) -> str | None:
        """The stage that this one is a part of."""
        return "graphs" if stage in self.spans.clocks else None

    def included(self, stage: str) -> str:
        """What a stage's time holds, in words."""
        return INCLUDED.get(stage, "the engine")


@contextmanager
def graph_runs(segmenter: Segmenter, image: Path, vocabulary: Vocabulary, canvas: Size | None) -> Iterator[GraphRuns]:
    """The graphs of a canvas, opened for themselves, with an image prepared as the segmenter does it.

    Args:
        segmenter: what runs where.
        image: the file.
        vocabulary: the classes.
        canvas: (H, W); None takes the smallest that holds the image.
    """
    bundle, plan, pipeline = segmenter.bundle, segmenter.plan, get_pipeline(segmenter.bundle.manifest)
    rgb = load(image).rgb
    where = _place(segmenter, (rgb.shape[0], rgb.shape[1]), canvas)
    feed = pipeline.image_feed(resize_rgb(rgb, where.valid), where.valid, where.canvas)
    feed |= pipeline.class_feed(vocabulary)
    chains = Chains(bundle, plan, pipeline.graphs)
    try:
        yield GraphRuns(chains.chain(where.canvas), feed, pipeline.wanted)
    finally:
        chains.close()


def _place(segmenter: Segmenter, size: Size, canvas: Size | None) -> Placement:
    canvases = segmenter.plan.canvases if canvas is None else (canvas,)
    return place(size, canvases, segmenter.bundle.manifest.recipe)


def check_batches(graphs: Iterable[GraphSpec], images: Collection[str], sizes: Iterable[int]) -> None:
    """Refuse batches that a graph does not take.

    Args:
        graphs: of one canvas.
        images: names of the inputs that are made from images.
        sizes: numbers of images at once.

    Raises:
        InputError: a graph's batch is fixed to another number, or its axis ends below it.
    """
    for size in sizes:
        for graph, tensor in _of_images(list(graphs), images):
            least, most = _batches(graph, tensor)
            if not least <= size <= most:
                shape = "x".join(map(str, tensor.shape))
                limit = f"fixed to {least}" if least == most else f"{least} to {most}"
                found = f"the graph {graph.name} takes {tensor.name} as {shape}, so its batch is {limit}"
                raise InputError(f"measure {size} images at once", found, "leave --sweep batch out")


def batched(feed: Mapping[str, Array], images: Collection[str], size: int) -> dict[str, Array]:
    """The inputs with every image's tensor repeated `size` times along its first axis."""
    return {name: np.repeat(array, size, axis=0) if name in images else array for name, array in feed.items()}


def _batches(graph: GraphSpec, tensor: TensorSpec) -> tuple[int, int]:
    axis = tensor.shape[0]
    if isinstance(axis, int):
        return axis, axis
    least, _, most = graph.axes.get(axis, (1, 1, 1))
    return least, most


def _of_images(graphs: list[GraphSpec], images: Collection[str]) -> Iterator[tuple[GraphSpec, TensorSpec]]:
    """Every tensor that follows from an image, with the graph that reads or gives it."""
    made = {tensor.name for graph in graphs for tensor in graph.outputs} | set(images)
    for graph in graphs:
        yield from ((graph, tensor) for tensor in (*graph.inputs, *graph.outputs) if tensor.name in made)
