"""The device layer on pycuda (2022.1 or newer), which JetPack images often have. It has no CUDA graphs.

pycuda frees an object only in the thread that made it, so a device opened here stays in its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from edgeseg.backends.base import Event
from edgeseg.backends.cuda.base import Bytes, CudaEvent, CudaGraph, CudaStream, DeviceProperties, out_of_memory
from edgeseg.errors import BackendError

Current = Callable[[], AbstractContextManager[Any]]
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h, for which pycuda has no name


@contextmanager
def _errors(driver: Any, asked: str, size_bytes: int = 0) -> Iterator[None]:
    try:
        yield
    except driver.MemoryError as error:
        raise out_of_memory("CUDA memory", size_bytes) from error
    except driver.Error as error:
        todo = "run `edgeseg doctor` to see what works on this machine"
        raise BackendError(asked, f"CUDA says: {error}", todo) from error


class _Event:
    def __init__(self, driver: Any, stream: Any, current: Current) -> None:
        self._driver, self._current = driver, current
        self.raw = driver.Event()
        self.raw.record(stream)

    def synchronize(self) -> None:
        with self._current(), _errors(self._driver, "wait for the device"):
            self.raw.synchronize()

    def ms_since(self, earlier: Any) -> float:
        with self._current(), _errors(self._driver, "read the device's clock"):
            return float(self.raw.time_since(earlier.raw))


class _Stream:
    def __init__(self, driver: Any, current: Current) -> None:
        self._driver, self._current = driver, current
        self._raw = driver.Stream(_NON_BLOCKING)
        self.handle = int(self._raw.handle)

    def record(self) -> CudaEvent:
        with self._current(), _errors(self._driver, "record an event"):
            return _Event(self._driver, self._raw, self._current)

    def wait(self, event: Event) -> None:
        with self._current(), _errors(self._driver, "wait for an event"):
            self._raw.wait_for_event(event.raw)  # type: ignore[attr-defined]  # an _Event

    def synchronize(self) -> None:
        with self._current(), _errors(self._driver, "wait for the device"):
            self._raw.synchronize()

    def copy_in(self, pointer: int, source: Bytes) -> None:
        with _errors(self._driver, "copy to the device"):
            self._driver.memcpy_htod_async(pointer, source, self._raw)

    def copy_out(self, target: Bytes, pointer: int) -> None:
        with _errors(self._driver, "copy from the device"):
            self._driver.memcpy_dtoh_async(target, pointer, self._raw)

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        raise BackendError("record a CUDA graph", "pycuda has none", "pip install 'edgeseg[cuda]'")


class PyCuda:
    """A device through pycuda. Raises BackendError if the package or the device is missing.

    Args:
        device: its index.
    """

    layer = "pycuda"
    graphs = False

    def __init__(self, device: int = 0) -> None:
        try:
            import pycuda.driver as driver
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendError("use pycuda", str(error), "pip install 'edgeseg[pycuda]'") from error
        self.device = device
        self._driver = driver
        self._allocations: dict[int, Any] = {}
        with _errors(driver, f"use CUDA device {device}"):
            driver.init()
            count = driver.Device.count()
        if device not in range(count):
            raise BackendError(f"use CUDA device {device}", f"there are {count}, numbered from 0", "choose another")
        with _errors(driver, f"use CUDA device {device}"):
            self._context = driver.Device(device).retain_primary_context()
            self.properties = self._read_properties(driver.Device(device))

    def _read_properties(self, device: Any) -> DeviceProperties:
        version = self._driver.get_driver_version()
        major, minor = device.compute_capability()
        return DeviceProperties(
            name=device.name(),
            capability=(major, minor),
            memory_bytes=device.total_memory(),
            driver=f"{version // 1000}.{version % 1000 // 10}",
            pci=device.pci_bus_id(),
        )

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context on this thread's stack, and pop it."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def free_bytes(self) -> int:
        with _errors(self._driver, "ask for the free memory"):
            return int(self._driver.mem_get_info()[0])

    def allocate(self, size_bytes: int) -> int:
        with _errors(self._driver, "allocate device memory", size_bytes):
            allocation = self._driver.mem_alloc(size_bytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, pointer: int) -> None:
        with _errors(self._driver, "free device memory"):
            self._allocations.pop(pointer).free()

    def pinned(self, size_bytes: int) -> Bytes:
        with _errors(self._driver, "allocate page-locked memory", size_bytes):
            array: Bytes = self._driver.pagelocked_empty(size_bytes, "uint8")
        return array

    def stream(self) -> CudaStream:
        with _errors(self._driver, "make a stream"):
            return _Stream(self._driver, self.current)
