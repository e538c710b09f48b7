"""Runs chains in which some blocks are of a lower precision, and compares each photo with what the fp32 chain gives.

What the fp32 chain gives is computed once and kept on the disk: labels of all photos, and of a few, the pilots, every
tensor between graphs, so that for them only the changed graphs and what follows them need to run.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import edgeseg
from edgeseg.atomic import atomic_write
from edgeseg.backends import get_backend
from edgeseg.backends.base import Array
from edgeseg.bundle import Bundle
from edgeseg.bundle.arrays import read_npz
from edgeseg.chain import Chain, Link
from edgeseg.errors import BuildError
from edgeseg.pipelines import get_pipeline
from edgeseg.placement import Placement
from edgeseg.schema import GraphSpec, Size, size_text

from ..gather import PILOTS
from ..photos import Photos
from ..ranges import Ranges, ranges_bytes
from ..weights import WeightWriter
from .ledger import Ledger, Row
from .mixture import Mixer, Mixture
from .score import Labels, Score, row, total
from .truth import Truth

EXACT = "fp32"

Rows = Generator[Row, None, None]
Watch = Callable[[], None]
"""Called once per photo that ran."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What is measured, and on what.

    Attributes:
        bundle: holds the fp32 graphs. `kind`: what its blocks become: "int8", "fp8" or "fp16".
        ranges: of its graphs; only fp16 does without.
        photos: to run.
        embeddings, overlap: (C, D) and (C,) float32, of the classes that are told apart.
        truth: true labels, if there are any.
        threads: CPU threads; None takes one per physical core.
    """

    bundle: Bundle
    kind: str
    ranges: Ranges | None
    photos: Photos
    embeddings: Array
    overlap: Array
    truth: Truth | None = None
    threads: int | None = None

    @property
    def key(self) -> str:
        """Names all that the results depend on, but for the precision."""
        graphs = {g.file: self.bundle.manifest.files[g.file].sha256 for g in self.bundle.manifest.graphs}
        fp32 = {file: sha for file, sha in graphs.items() if file.startswith("graphs/fp32/")}
        vocabulary = hashlib.sha256(self.embeddings.tobytes() + self.overlap.tobytes()).hexdigest()
        ranges = hashlib.sha256(ranges_bytes(self.ranges)).hexdigest() if self.ranges else None
        canvases = [size_text(photo.placement.canvas) for photo in self.photos.items]
        versions = [edgeseg.__version__, version("onnxruntime")]
        truth = self.truth.digest if self.truth else None
        return json.dumps([fp32, vocabulary, ranges, self.photos.note.digest, canvases, truth, versions])


class Clock:
    """Stops a study that takes too long.

    Args:
        limit_s: how long it may take from now on.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._end = limit_s, time.monotonic() + limit_s

    def check(self) -> None:
        """Raise BuildError once the time is over."""
        if time.monotonic() > self._end:
            found = f"the time limit of {self._limit_s / 60:g} minutes is over"
            todo = "start it again to go on from there, or give a longer --time-limit, or fewer images with --limit"
            raise BuildError("measure how precision changes the labels", found, todo)


class Trials:
    """See the module's text.

    Args:
        setup: what is measured.
        folder: for files that are needed while this lasts; what is found in it of the same study is used.
        clock: checked after every photo.
    """

    def __init__(self, setup: Setup, folder: Path, clock: Clock) -> None:
        self.setup, self._folder, self._clock = setup, folder, clock
        self._pipeline = get_pipeline(setup.bundle.manifest)
        self._backend = get_backend("onnxruntime", setup.threads)
        self._mixer = Mixer(setup.bundle, setup.kind, setup.ranges)
        self._vocabulary = self._pipeline.vocabulary_feed(setup.embeddings, setup.overlap)
        self._ledger = Ledger(folder / "trials.json", setup.key)
        count = len(setup.photos.items)
        self.all = tuple(range(count))
        self.pilots = tuple(dict.fromkeys(int(i * max(count / PILOTS, 1)) for i in range(min(PILOTS, count))))
        if not self._ledger.resumed:
            for path in folder.glob("exact-*.npz"):  # of another study
                path.unlink()

    def exact(self, watch: Watch) -> Score:
        """Run the fp32 chain on all photos, and score it against the true labels, if there are any."""
        return self._total(EXACT, self.all, self._exact_rows, watch)

    def score(self, mixture: Mixture, watch: Watch, *, pilots: bool) -> Score:
        """Run a mixture on all photos, or on the pilots only, for which tensors are compared too."""
        name = f"{self.setup.kind} {'pilots' if pilots else 'all'} {mixture.name}"
        photos = self.pilots if pilots else self.all
        return self._total(name, photos, lambda left: self._mixed_rows(mixture, left, pilots), watch)

    def _total(self, name: str, photos: Sequence[int], run: Callable[[Sequence[int]], Rows], watch: Watch) -> Score:
        done = len(self._ledger.rows(name))
        for _ in range(done):
            watch()
        try:
            with closing(run(photos[done:])) as rows:
                for one in rows:
                    self._ledger.add(name, one)
                    watch()
                    self._clock.check()
        finally:
            self._ledger.save()
        return total(self._ledger.rows(name), len(self.setup.embeddings))

    def _exact_rows(self, photos: Sequence[int]) -> Rows:
        for canvas, group in self._by_canvas(photos):
            with self._chain(Mixture(), canvas, whole=True) as chain:
                outputs = {tensor.name for link in chain.order for tensor in link.graph.outputs}
                for index in group:
                    images = self._images(index)
                    kept = outputs if index in self.pilots else set(self._pipeline.wanted)
                    tensors = images | chain.run(images | self._vocabulary, kept).tensors
                    labels = self._labels(index, tensors)
                    if labels is None:
                        raise self._not_finite(index)
                    self._keep(index, labels, tensors if index in self.pilots else {})
                    yield row(labels, labels, {}, self._truth(index))

    def _mixed_rows(self, mixture: Mixture, photos: Sequence[int], pilots: bool) -> Rows:
        for canvas, group in self._by_canvas(photos):
            with self._chain(mixture, canvas, whole=not pilots) as chain:
                made = {tensor.name for link in chain.order for tensor in link.graph.outputs}
                changed = [link.graph for link in chain.order if link.graph.name in mixture.graphs]
                compared = [tensor.name for graph in changed for tensor in graph.outputs] if pilots else []
                wanted = (set(self._pipeline.wanted) & made) | set(compared)
                for index in group:
                    exact, stored = self._stored(index)
                    feed = (stored if pilots else self._images(index)) | self._vocabulary
                    tensors = stored | chain.run(feed, wanted).tensors
                    pairs = {name: (tensors[name], stored[name]) for name in compared}
                    yield row(self._labels(index, tensors), exact, pairs, self._truth(index))

    def _by_canvas(self, photos: Sequence[int]) -> Iterator[tuple[Size, Iterator[int]]]:
        items = self.setup.photos.items
        return itertools.groupby(photos, key=lambda index: items[index].placement.canvas)

    @contextmanager
    def _chain(self, mixture: Mixture, canvas: Size, *, whole: bool) -> Iterator[Chain]:
        """The chain of a mixture; unless `whole`, only the changed graphs and those that need what they give."""
        links: list[Link] = []
        fresh: set[str] = set()
        try:
            for name in self._pipeline.graphs:
                graph = self.setup.bundle.graph(name, EXACT, canvas)
                changed = name in mixture.graphs
                if changed or whole or any(tensor.name in fresh for tensor in graph.inputs):
                    fresh |= {tensor.name for tensor in graph.outputs}
                    links.append(self._mixed(graph, mixture) if changed else self._link(graph))
            yield Chain(links)
        finally:
            for link in links:
                link.session.close()

    def _link(self, graph: GraphSpec) -> Link:
        return Link(graph, self._backend.open(self.setup.bundle.graph_files(graph), graph))

    def _mixed(self, graph: GraphSpec, mixture: Mixture) -> Link:
        path = self._folder / f"{graph.name}-{size_text(graph.canvas)}.onnx"
        with WeightWriter(path.with_suffix(".bin")) as writer:
            made = self._mixer.make(graph, mixture, writer)
        path.write_bytes(made.model.SerializeToString())
        precision = "mixed" if made.conversion and made.inserted else self.setup.kind
        return Link(graph, self._backend.open(path, replace(graph, precision=precision)))

    def _images(self, index: int) -> dict[str, Array]:
        photo = self.setup.photos.items[index]
        return self._pipeline.image_feed(photo.rgb(), photo.placement.valid, photo.placement.canvas)

    def _labels(self, index: int, tensors: Mapping[str, Array]) -> Labels | None:
        """Of the photo's size if there are true labels, else of the size that it has on the canvas; None for NaN."""
        if not all(np.isfinite(tensors[name]).all() for name in self._pipeline.wanted):
            return None
        place = self.setup.photos.items[index].placement
        if self.setup.truth is None:
            place = Placement(place.valid, place.valid, place.canvas, place.exact, place.reason)
        return self._pipeline.evidence(tensors, (), place).compose().labels

    def _truth(self, index: int) -> Labels | None:
        return None if self.setup.truth is None else self.setup.truth.labels(index)

    def _keep(self, index: int, labels: Labels, tensors: Mapping[str, Array]) -> None:
        arrays: dict[str, Any] = {f"tensor:{name}": array for name, array in tensors.items()}
        with atomic_write(self._folder / f"exact-{index}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, labels=labels, **arrays)

    def _stored(self, index: int) -> tuple[Labels, dict[str, Array]]:
        arrays = read_npz(self._folder / f"exact-{index}.npz")
        labels = arrays.pop("labels")
        return labels, {name.removeprefix("tensor:"): array for name, array in arrays.items()}

    def _not_finite(self, index: int) -> BuildError:
        found = f"the fp32 graphs give numbers that are not finite for image {index + 1}"
        return BuildError(f"measure {self.setup.bundle.path}", found, "check the bundle with `edgeseg verify`")
