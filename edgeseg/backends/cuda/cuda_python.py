"""The device layer on NVIDIA's cuda-python (`cuda.bindings`, 12.8 to 13.x): runtime API, so the primary context.

Every call there returns a tuple, its error code first; `_Runtime.call` turns that into a value or an error.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from edgeseg.backends.base import Event
from edgeseg.backends.cuda.base import Bytes, CudaEvent, CudaGraph, CudaStream, DeviceProperties, out_of_memory
from edgeseg.errors import BackendError

Current = Callable[[], AbstractContextManager[Any]]
_TODO = "run `edgeseg doctor` to see what works on this machine"


class _Runtime:
    def __init__(self, module: Any) -> None:
        self.module = module

    def call(self, name: str, *args: Any) -> Any:
        """The value of the runtime function `name`; None if it has none. Raises BackendError, OutOfMemoryError."""
        error, *values = getattr(self.module, name)(*args)
        if error == self.module.cudaError_t.cudaErrorMemoryAllocation:
            raise out_of_memory("CUDA memory", args[0] if args and isinstance(args[0], int) else 0)
        if error != self.module.cudaError_t.cudaSuccess:
            text = self.module.cudaGetErrorString(error)[1].decode()
            raise BackendError(f"call {name}", f"CUDA says: {text}", _TODO)
        return values[0] if len(values) == 1 else tuple(values) or None

    def destroy_with(self, owner: Any, name: str, handle: Any) -> None:
        """Call the runtime function `name` on `handle` when `owner` is dropped; at exit the driver does it itself."""
        weakref.finalize(owner, getattr(self.module, name), handle).atexit = False


class _Event:
    def __init__(self, runtime: _Runtime) -> None:
        self._runtime = runtime
        self.raw = runtime.call("cudaEventCreate")
        runtime.destroy_with(self, "cudaEventDestroy", self.raw)

    def synchronize(self) -> None:
        self._runtime.call("cudaEventSynchronize", self.raw)

    def ms_since(self, earlier: Any) -> float:
        return float(self._runtime.call("cudaEventElapsedTime", earlier.raw, self.raw))


class _Graph:
    def __init__(self, runtime: _Runtime, graph: Any) -> None:
        self._runtime = runtime
        runtime.destroy_with(self, "cudaGraphDestroy", graph)
        self._executable = runtime.call("cudaGraphInstantiate", graph, 0)
        runtime.destroy_with(self, "cudaGraphExecDestroy", self._executable)

    def launch(self, stream: CudaStream) -> None:
        self._runtime.call("cudaGraphLaunch", self._executable, stream.handle)


class _Stream:
    def __init__(self, runtime: _Runtime, current: Current) -> None:
        self._runtime, self._current = runtime, current
        self._raw = runtime.call("cudaStreamCreateWithFlags", runtime.module.cudaStreamNonBlocking)
        runtime.destroy_with(self, "cudaStreamDestroy", self._raw)
        self.handle = int(self._raw)

    def record(self) -> CudaEvent:
        with self._current():
            event = _Event(self._runtime)
            self._runtime.call("cudaEventRecord", event.raw, self._raw)
        return event

    def wait(self, event: Event) -> None:
        with self._current():
            self._runtime.call("cudaStreamWaitEvent", self._raw, event.raw, 0)  # type: ignore[attr-defined]  # an _Event

    def synchronize(self) -> None:
        with self._current():
            self._runtime.call("cudaStreamSynchronize", self._raw)

    def copy_in(self, pointer: int, source: Bytes) -> None:
        kind = self._runtime.module.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._runtime.call("cudaMemcpyAsync", pointer, source.ctypes.data, source.nbytes, kind, self._raw)

    def copy_out(self, target: Bytes, pointer: int) -> None:
        kind = self._runtime.module.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._runtime.call("cudaMemcpyAsync", target.ctypes.data, pointer, target.nbytes, kind, self._raw)

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        mode = self._runtime.module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._runtime.call("cudaStreamBeginCapture", self._raw, mode)
        try:
            work()
        except BaseException:
            # Ends the capture, whose result is of no use; the error that stopped `work` is the one to report.
            self._runtime.module.cudaStreamEndCapture(self._raw)
            raise
        return _Graph(self._runtime, self._runtime.call("cudaStreamEndCapture", self._raw))


class CudaPython:
    """A device through cuda-python. Raises BackendError if the package or the device is missing.

    Args:
        device: its index.
    """

    layer = "cuda-python"
    graphs = True

    def __init__(self, device: int = 0) -> None:
        try:
            from cuda.bindings import runtime
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendError("use cuda-python", str(error), "pip install 'edgeseg[cuda]'") from error
        self.device = device
        self._runtime = _Runtime(runtime)
        if self._runtime.call("cudaDriverGetVersion") == 0:
            raise BackendError("use cuda-python", "there is no NVIDIA driver", "install the driver of your device")
        count = self._runtime.call("cudaGetDeviceCount")
        if device not in range(count):
            raise BackendError(f"use CUDA device {device}", f"there are {count}, numbered from 0", "choose another")
        self.properties = self._read_properties()

    def _read_properties(self) -> DeviceProperties:
        properties = self._runtime.call("cudaGetDeviceProperties", self.device)
        driver = self._runtime.call("cudaDriverGetVersion")
        return DeviceProperties(
            name=properties.name.split(b"\0")[0].decode(),
            capability=(int(properties.major), int(properties.minor)),
            memory_bytes=int(properties.totalGlobalMem),
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
            pci=f"{properties.pciDomainID:04x}:{properties.pciBusID:02x}:{properties.pciDeviceID:02x}.0",
        )

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in this thread, and put back the one that was."""
        before = self._runtime.call("cudaGetDevice")
        self._runtime.call("cudaSetDevice", self.device)
        try:
            yield
        finally:
            if before != self.device:
                self._runtime.call("cudaSetDevice", before)

    def free_bytes(self) -> int:
        return int(self._runtime.call("cudaMemGetInfo")[0])

    def allocate(self, size_bytes: int) -> int:
        return int(self._runtime.call("cudaMalloc", size_bytes))

    def free(self, pointer: int) -> None:
        self._runtime.call("cudaFree", pointer)

    def pinned(self, size_bytes: int) -> Bytes:
        pointer = int(self._runtime.call("cudaMallocHost", size_bytes))
        memory = (ctypes.c_uint8 * size_bytes).from_address(pointer)
        self._runtime.destroy_with(memory, "cudaFreeHost", pointer)
        return np.ctypeslib.as_array(memory)

    def stream(self) -> CudaStream:
        return _Stream(self._runtime, self.current)
