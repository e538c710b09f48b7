"""The public fake of the device seam: memory is numpy, streams are queues that run as late as they may.

Nothing enqueued is done before somebody waits for it, so an operation that ought to wait for another stream and does
not meets memory that is not there yet. That makes a missing wait a wrong result in every run; a GPU shows it rarely.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from edgeseg.backends.base import Event
from edgeseg.backends.cuda.base import Bytes, CudaEvent, CudaGraph, CudaStream, DeviceProperties, out_of_memory


class FakeEvent:
    """Reached once its stream has done everything that was enqueued before it."""

    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream
        self.reached = False

    def synchronize(self) -> None:
        """Do the stream's work up to here."""
        while not self.reached:
            self._stream.step()

    def ms_since(self, earlier: CudaEvent) -> float:
        """Always 1.0."""
        return 1.0


class FakeGraph:
    """The work that a stream was given while it captured."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self, stream: CudaStream) -> None:
        """Enqueue it again."""
        for work in self._work:
            stream.enqueue(work)  # type: ignore[attr-defined]  # a FakeStream


class FakeStream:
    """A queue of functions."""

    def __init__(self, cuda: FakeCuda, handle: int) -> None:
        self.handle = handle
        self._cuda = cuda
        self._queue: deque[Callable[[], None]] = deque()

    def enqueue(self, work: Callable[[], None]) -> None:
        """What a kernel launch is to a real stream."""
        self._queue.append(work)

    def step(self) -> None:
        """Do the oldest piece of work."""
        self._queue.popleft()()

    def record(self) -> CudaEvent:
        event = FakeEvent(self)
        self.enqueue(lambda: setattr(event, "reached", True))
        return event

    def wait(self, event: Event) -> None:
        self.enqueue(event.synchronize)  # type: ignore[attr-defined]  # a FakeEvent

    def synchronize(self) -> None:
        while self._queue:
            self.step()

    def copy_in(self, pointer: int, source: Bytes) -> None:
        self._cuda.require_current()
        self.enqueue(lambda: np.copyto(self._cuda.view(pointer, source.nbytes), source))

    def copy_out(self, target: Bytes, pointer: int) -> None:
        self._cuda.require_current()
        self.enqueue(lambda: np.copyto(target, self._cuda.view(pointer, target.nbytes)))

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        self._cuda.require_current()
        before, self._queue = self._queue, deque()
        try:
            work()
            return FakeGraph(list(self._queue))
        finally:
            self._queue = before


class FakeCuda:
    """A device in host memory.

    Args:
        memory_bytes: an allocation beyond this fails.
        capability: of the pretended device.

    Attributes:
        memory: every live allocation by address.
        allocations: how many were ever made.
        streams: every stream by handle.
    """

    layer = "fake"
    device = 0
    graphs = True

    def __init__(self, memory_bytes: int = 2**30, capability: tuple[int, int] = (8, 7)) -> None:
        self.properties = DeviceProperties("fake device", capability, memory_bytes, "12.6")
        self.memory: dict[int, Bytes] = {}
        self.allocations = 0
        self.streams: dict[int, FakeStream] = {}
        self._depth = 0
        self._addresses = itertools.count(2**40, 2**32)

    def view(self, pointer: int, size_bytes: int) -> Bytes:
        """`size_bytes` of device memory from an address that `allocate` returned; KeyError if it was freed."""
        block = self.memory[pointer]
        if size_bytes > block.nbytes:
            raise IndexError(f"{size_bytes} bytes of a block of {block.nbytes}")
        return block[:size_bytes]

    @contextmanager
    def current(self) -> Iterator[None]:
        """Where everything else is allowed."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def require_current(self) -> None:
        """Raise a RuntimeError outside `current`, where a real layer would meet another device's context, or none."""
        if self._depth == 0:
            raise RuntimeError("the device is not current")

    def free_bytes(self) -> int:
        self.require_current()
        return self.properties.memory_bytes - sum(block.nbytes for block in self.memory.values())

    def allocate(self, size_bytes: int) -> int:
        self.require_current()
        if size_bytes > self.free_bytes():
            raise out_of_memory("fake memory", size_bytes)
        self.allocations += 1
        pointer = next(self._addresses)
        self.memory[pointer] = np.full(size_bytes, 0xFF, np.uint8)  # NaN as float32: nobody may rely on zeros
        return pointer

    def free(self, pointer: int) -> None:
        self.require_current()
        for stream in self.streams.values():  # as cudaFree does
            stream.synchronize()
        del self.memory[pointer]

    def pinned(self, size_bytes: int) -> Bytes:
        self.require_current()
        return np.full(size_bytes, 0xFF, np.uint8)

    def stream(self) -> CudaStream:
        self.require_current()
        stream = FakeStream(self, len(self.streams) + 1)
        self.streams[stream.handle] = stream
        return stream
