"""Runs graphs that are wired by tensor names, and keeps what flows between them where the engines run.

Order, in three rules:

1. A graph runs once all its inputs are there; among those that can, the one named first runs first.
2. With several streams, a graph takes the stream of the producer that finished last, or the next stream if it has none;
   it waits for its other producers by events.
3. A tensor is dropped after its last reader was started, unless the caller asked for it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from edgeseg.backends.base import Array, Event, Session, Stream, Tensor
from edgeseg.errors import BundleError
from edgeseg.schema import GraphSpec


class Observer(Protocol):
    """Hears of every step of a run: "upload", each graph by its name, "download".

    Where several streams overlap, "wait" comes before the download: the streams are waited for, so that the download's
    time does not hold that of the graphs.
    """

    def step(self, name: str, stream: Stream | None) -> AbstractContextManager[object]:
        """Stands around a step; `stream` is where a graph is started, None for a step of the host."""
        ...


class _Nobody:
    """Observes nothing, at the cost of a call."""

    _nothing = nullcontext()

    def step(self, name: str, stream: Stream | None) -> AbstractContextManager[object]:
        return self._nothing


_NOBODY = _Nobody()


@dataclass(frozen=True)
class Link:
    """A graph and the session that runs it."""

    graph: GraphSpec
    session: Session


@dataclass(frozen=True, eq=False)
class ChainResult:
    """What a run gave.

    Attributes:
        tensors: the tensors asked for, by name.
        timings_ms: wall time of each graph, by name; empty where several streams overlap (`Chain.profile` has them).
    """

    tensors: dict[str, Array]
    timings_ms: dict[str, float] = field(default_factory=dict)


class Chain:
    """Wired graphs of one canvas. Not thread-safe, like its sessions.

    Args:
        links: the graphs, in any order.
        streams: none or one runs everything in order; more overlap independent graphs.

    Raises:
        BundleError: two graphs give one tensor, or the wiring goes round in a circle.
    """

    def __init__(self, links: Sequence[Link], streams: Sequence[Stream] = ()) -> None:
        self.order = _ordered(links)
        self.inputs = _free_inputs(self.order)
        self._streams = list(streams)

    def run(
        self, inputs: Mapping[str, Array], wanted: Collection[str], observer: Observer | None = None
    ) -> ChainResult:
        """Run every graph and bring the `wanted` tensors back."""
        if len(self._streams) < 2:
            return self.profile(inputs, wanted, observer)
        lanes, watch = _Lanes(self._streams), observer or _NOBODY
        with watch.step("upload", None):
            tensors = self._started(inputs)
        kept: dict[str, Tensor] = {}
        for index, link in enumerate(self.order):
            stream = lanes.enter(link.graph)
            with watch.step(link.graph.name, stream):
                tensors.update(link.session.run(_picked(link.graph, tensors), stream))
            lanes.leave(link.graph, stream)
            self._drop(index, tensors, wanted, kept)
        if observer is not None:
            self._wait(observer)
        with watch.step("download", None):
            return ChainResult(self._fetched({**tensors, **kept}, wanted))

    def profile(
        self, inputs: Mapping[str, Array], wanted: Collection[str], observer: Observer | None = None
    ) -> ChainResult:
        """The same, one graph after the other, each timed to its end."""
        stream = self._streams[0] if self._streams else None
        watch = observer or _NOBODY
        with watch.step("upload", None):
            tensors, timings_ms = self._started(inputs), {}
        kept: dict[str, Tensor] = {}
        for index, link in enumerate(self.order):
            start = time.perf_counter()
            with watch.step(link.graph.name, stream):
                tensors.update(link.session.run(_picked(link.graph, tensors), stream))
            if stream is not None:
                stream.synchronize()
            timings_ms[link.graph.name] = (time.perf_counter() - start) * 1e3
            self._drop(index, tensors, wanted, kept)
        with watch.step("download", None):
            return ChainResult(self._fetched({**tensors, **kept}, wanted), timings_ms)

    def steps(self, observer: Observer | None = None) -> Steps:
        """The same graphs, for a family that runs them in an order of its own."""
        stream = self._streams[0] if self._streams else None
        return Steps(self.order, stream, observer or _NOBODY, timed=len(self._streams) < 2)

    def _wait(self, observer: Observer) -> None:
        with observer.step("wait", None):
            for stream in self._streams:
                stream.synchronize()

    def _started(self, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        missing = self.inputs - set(inputs)
        if missing:
            given = f"no graph gives {sorted(missing)} and the caller gave {sorted(inputs)}"
            raise BundleError("run the chain", given, "make the bundle again")
        session = self.order[0].session
        return {name: session.upload(inputs[name]) for name in sorted(self.inputs)}

    def _drop(self, index: int, tensors: dict[str, Tensor], wanted: Collection[str], kept: dict[str, Tensor]) -> None:
        needed = {spec.name for link in self.order[index + 1 :] for spec in link.graph.inputs}
        for name in [name for name in tensors if name not in needed]:
            tensor = tensors.pop(name)
            if name in wanted:
                kept[name] = tensor

    def _fetched(self, tensors: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Array]:
        absent = set(wanted) - set(tensors)
        if absent:
            raise BundleError("run the chain", f"no graph gives {sorted(absent)}", "make the bundle again")
        session = self.order[-1].session
        return {name: session.download(tensors[name]) for name in wanted}


class Steps:
    """A chain's graphs one at a time, some of them more than once; tensors stay where the engines run.

    Args:
        order: the graphs, opened.
        stream: where all of them run, one after the other.
        watch: hears of every step.
        timed: wait for each graph's end.

    Attributes:
        timings_ms: if timed, wall time of each graph so far, summed over its runs.
    """

    def __init__(self, order: Sequence[Link], stream: Stream | None, watch: Observer, *, timed: bool) -> None:
        self._links, self._stream, self._watch = {link.graph.name: link for link in order}, stream, watch
        self._host, self._timed = order[0].session, timed
        self.timings_ms: dict[str, float] = {}

    def graph(self, name: str) -> GraphSpec:
        """The graph with this name."""
        return self._links[name].graph

    def upload(self, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        """Arrays as tensors."""
        with self._watch.step("upload", None):
            return {name: self._host.upload(array) for name, array in inputs.items()}

    def run(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One graph's outputs; of the tensors it takes what it reads."""
        link, start = self._links[name], time.perf_counter()
        with self._watch.step(name, self._stream):
            made = link.session.run(_picked(link.graph, tensors), self._stream)
        if self._timed:
            if self._stream is not None:
                self._stream.synchronize()
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + (time.perf_counter() - start) * 1e3
        return made

    def download(self, tensor: Tensor) -> Array:
        """A tensor as an array."""
        if self._stream is not None and self._watch is not _NOBODY:
            with self._watch.step("wait", None):
                self._stream.synchronize()
        with self._watch.step("download", None):
            return self._host.download(tensor)


class _Lanes:
    """Which stream a graph takes (rule 2)."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._made: dict[str, tuple[int, Stream, Event]] = {}  # tensor → when its graph was started, where, its end
        self._fresh = 0

    def enter(self, graph: GraphSpec) -> Stream:
        producers = [self._made[spec.name] for spec in graph.inputs if spec.name in self._made]
        if producers:
            stream = max(producers, key=lambda made: made[0])[1]
        else:
            stream = self._streams[self._fresh % len(self._streams)]
            self._fresh += 1
        for _, other, event in producers:
            if other is not stream:
                stream.wait(event)
        return stream

    def leave(self, graph: GraphSpec, stream: Stream) -> None:
        end, number = stream.record(), len(self._made)
        self._made.update({spec.name: (number, stream, end) for spec in graph.outputs})


def _picked(graph: GraphSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {spec.name: tensors[spec.name] for spec in graph.inputs}


def _free_inputs(order: Sequence[Link]) -> set[str]:
    made = {spec.name for link in order for spec in link.graph.outputs}
    return {spec.name for link in order for spec in link.graph.inputs} - made


def _ordered(links: Sequence[Link]) -> list[Link]:
    makers: dict[str, str] = {}
    for link in links:
        for spec in link.graph.outputs:
            if spec.name in makers:
                found = f"{makers[spec.name]} and {link.graph.name} both give {spec.name}"
                raise BundleError("wire the graphs", found, "make the bundle again")
            makers[spec.name] = link.graph.name
    order: list[Link] = []
    left = list(links)
    while left:
        pending = {spec.name for link in left for spec in link.graph.outputs}
        ready = [link for link in left if not any(spec.name in pending for spec in link.graph.inputs)]
        if not ready:
            circle = ", ".join(link.graph.name for link in left)
            raise BundleError("wire the graphs", f"they wait for each other: {circle}", "make the bundle again")
        order.append(ready[0])
        left.remove(ready[0])
    return order
