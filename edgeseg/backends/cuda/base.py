"""The seam to an NVIDIA device: memory, streams, events and CUDA graphs, whichever Python layer is installed.

Every layer works on the device's *primary* context, so that torch or a user's pycuda in the same process shares it.
Imports no SDK: a layer's own file does, inside the function that opens the device.

The one rule for callers: everything here is called inside `with cuda.current():`, in the thread that opened the
device. That keeps a layer from touching a context that the user made current. Exempt are `current` itself, the verbs of
`edgeseg.backends.base.Stream` and those of events: they make it current by themselves, because a chain, which knows no
device, calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.backends.base import Event
from edgeseg.errors import BackendError

Bytes = npt.NDArray[np.uint8]
"""Host memory, (size_bytes,) uint8, contiguous."""


class OutOfMemoryError(BackendError):
    """The device or the host has no memory left for an allocation; the caller may free some and try again."""


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is.

    Attributes:
        name: NVIDIA's name of it ("Orin", "NVIDIA H200").
        capability: compute capability, (major, minor); (8, 7) for Orin.
        memory_bytes: all of its memory; on a Jetson the CPU has the same.
        driver: newest CUDA version that the driver supports ("12.6").
        pci: its place on the bus ("0000:19:00.0"), by which other tools know it; "" if unknown.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    driver: str
    pci: str = ""


class CudaEvent(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Wait on the host until the work before it is done; raises BackendError if that work failed."""
        ...

    def ms_since(self, earlier: CudaEvent) -> float:
        """Device time in milliseconds from `earlier`; both must have been reached."""
        ...


class CudaGraph(Protocol):
    """Recorded work, enqueued again with one call; the addresses it was recorded with stay in it."""

    def launch(self, stream: CudaStream) -> None: ...


class CudaStream(Protocol):
    """An ordered queue of device work; `handle` is its cudaStream_t as an integer."""

    @property
    def handle(self) -> int: ...

    def record(self) -> CudaEvent: ...

    def wait(self, event: Event) -> None: ...

    def synchronize(self) -> None: ...

    def copy_in(self, pointer: int, source: Bytes) -> None:
        """Enqueue host to device; `source` must be pinned and stay unchanged until then."""
        ...

    def copy_out(self, target: Bytes, pointer: int) -> None:
        """Enqueue device to host; `target` must be pinned and is filled only then."""
        ...

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """What `work` enqueues on this stream, recorded instead of done. Raises BackendError without `Cuda.graphs`."""
        ...


class Cuda(Protocol):
    """One opened device.

    Attributes:
        layer: the Python package underneath, "cuda-python" or "pycuda".
        device: its index.
        properties: what it is.
        graphs: `CudaStream.capture` works.
    """

    layer: str
    device: int
    properties: DeviceProperties
    graphs: bool

    def current(self) -> AbstractContextManager[Any]:
        """Make the device's primary context current in this thread, and put back what was."""
        ...

    def free_bytes(self) -> int:
        """Device memory that nobody holds."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, aligned to 256 bytes. Raises OutOfMemoryError."""
        ...

    def free(self, pointer: int) -> None:
        """Give memory back, once all work enqueued so far is done."""
        ...

    def pinned(self, size_bytes: int) -> Bytes:
        """New page-locked host memory, freed with the array. Raises OutOfMemoryError."""
        ...

    def stream(self) -> CudaStream:
        """A new stream that does not wait for the default stream."""
        ...


def out_of_memory(what: str, size_bytes: int) -> OutOfMemoryError:
    """The error of a failed allocation of `what` ("device memory")."""
    return OutOfMemoryError(
        f"allocate {size_bytes / 2**20:.1f} MiB of {what}",
        "there is not that much left",
        "close other programs, or use a smaller canvas or --precision fp16",
    )
