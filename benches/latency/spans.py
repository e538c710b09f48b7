"""The steps of a chain's run, each timed by the clock of where it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

from edgeseg.backends.base import Event, Stream

HOST_STEPS = ("upload", "wait", "download")

DEVICE_CLOCK, HOST_CLOCK = "CUDA events", "monotonic clock"


class _Timed(Protocol):
    """An event of a device that has a clock."""

    def ms_since(self, earlier: Event) -> float: ...


@dataclass(frozen=True)
class Span:
    """One step.

    Attributes:
        name: of the step.
        start_s, end_s: on the host's monotonic clock; on a GPU, when it was enqueued.
        events: before and after it on its stream; None without one.
    """

    name: str
    start_s: float
    end_s: float
    events: tuple[Event, Event] | None

    @property
    def clock(self) -> str:
        """What times it: a device that has a clock of its own does, once its stream was waited for."""
        return DEVICE_CLOCK if self.events and hasattr(self.events[1], "ms_since") else HOST_CLOCK

    @property
    def ms(self) -> float:
        """How long it took."""
        if self.events and self.clock == DEVICE_CLOCK:
            return cast(_Timed, self.events[1]).ms_since(self.events[0])
        return (self.end_s - self.start_s) * 1e3


class Spans:
    """An `edgeseg.chain.Observer`; ask `take` after each run.

    Attributes:
        clocks: graph → which clock timed it.
    """

    def __init__(self) -> None:
        self.clocks: dict[str, str] = {}
        self._spans: list[Span] = []

    @contextmanager
    def step(self, name: str, stream: Stream | None) -> Iterator[None]:
        """See `Observer`."""
        before = stream.record() if stream is not None else None
        start_s = time.perf_counter()
        yield
        end_s = time.perf_counter()
        after = stream.record() if stream is not None else None
        events = None if before is None or after is None else (before, after)
        self._spans.append(Span(name, start_s, end_s, events))

    def drain(self) -> list[Span]:
        """What was observed since the last call."""
        spans, self._spans = self._spans, []
        return spans

    def take(self) -> dict[str, float]:
        """Milliseconds of "upload", "graphs" (all of them, first start to last end), each graph, and "download".

        Of what a family does more than once, the sum; copies between graphs do not count as graphs.
        """
        spans = self.drain()
        uploads, downloads = ([span for span in spans if span.name == name] for name in ("upload", "download"))
        graphs = [span for span in spans if span.name not in HOST_STEPS]
        self.clocks = {span.name: span.clock for span in graphs}
        whole = (downloads[-1].start_s - uploads[0].end_s) * 1e3
        between = sum(span.ms for span in (*uploads[1:], *downloads[:-1]))
        found = {"upload": sum(span.ms for span in uploads), "graphs": whole - between}
        for span in graphs:
            found[span.name] = found.get(span.name, 0.0) + span.ms
        return found | {"download": sum(span.ms for span in downloads)}
