"""Engines of TensorRT 8.6 to 11 and of TensorRT-RTX: one session, because their execution surface is the same.

The SDK is an argument, the module that `tensorrt.py` or `tensorrt_rtx.py` imported; nothing here imports it.
Enumerators are looked up by name, because their integers moved between versions; an SDK may lack some data types.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeseg.backends.base import Array, Stream, Tensor
from edgeseg.backends.cuda.base import CudaEvent, CudaStream
from edgeseg.backends.cuda.memory import DeviceTensor, Pool
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec, TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_KEPT_MESSAGES = 8


def numpy_dtype(trt: Any, dtype: Any) -> np.dtype[Any] | None:
    """The numpy dtype of a `trt.DataType`; None if numpy has none (BF16, FP8, INT4)."""
    for name, text in _DTYPES.items():
        if getattr(trt.DataType, name, None) == dtype:
            return np.dtype(text)
    return None


def make_log(trt: Any) -> Any:
    """A `trt.ILogger` that keeps the last errors; `take()` returns them as one line and forgets them."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known when the SDK is
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors = [*self.errors, text][-_KEPT_MESSAGES:]

        def take(self) -> str:
            errors, self.errors = self.errors, []
            return " / ".join(errors) or "it gives no reason"

    return Log()


@dataclass(frozen=True)
class Sdk:
    """An imported TensorRT: its name ("tensorrt"), its module, and the `make_log` of it."""

    name: str
    trt: Any
    log: Any


def load_engine(sdk: Sdk, path: Path, rebuild: str) -> tuple[Any, Any]:
    """Deserialise an engine file: (runtime, engine), of which the runtime must live as long as the engine.

    Args:
        sdk: the imported TensorRT.
        path: a file whose digest has been checked.
        rebuild: the command that makes it again, for the BackendError when the SDK refuses it.
    """
    runtime = sdk.trt.Runtime(sdk.log)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        # Mapped, not read: on a Jetson the file's pages would count twice against the memory of the GPU.
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        asked = f"load {path.name} with {sdk.name} {sdk.trt.__version__}"
        raise BackendError(asked, sdk.log.take(), f"run `{rebuild}`")
    return runtime, engine


class TrtSession:
    """One opened engine. Not thread-safe; see `edgeseg.backends.base.Session`.

    An output stays valid as long as its tensor is held, also over later runs.

    Args:
        sdk: the imported TensorRT.
        path: the engine file.
        graph: what the engine was made from; inputs and outputs must agree.
        pool: memory of the device.
        rebuild: the command that makes the engine again.
    """

    def __init__(self, sdk: Sdk, path: Path, graph: GraphSpec, pool: Pool, *, rebuild: str) -> None:
        self._sdk, self._graph, self._pool, self._rebuild = sdk, graph, pool, rebuild
        self._last: tuple[CudaStream, CudaEvent] | None = None
        with pool.cuda.current():
            self._runtime, self._engine = load_engine(sdk, path, rebuild)
            self._check_io()
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._refusal("open", sdk.log.take(), "close other programs, or use a smaller canvas")
        self._shapes: dict[str, tuple[int, ...]] = {}

    def upload(self, array: Array) -> Tensor:
        """A copy of the array on the device."""
        with self._pool.cuda.current():
            return self._pool.upload(array, self._pool.stream)

    def download(self, tensor: Tensor) -> Array:
        """The tensor as a numpy array; waits for the runs that it depends on."""
        with self._pool.cuda.current():
            return self._pool.download(self._own("download", tensor), self._pool.stream)

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Tensor]:
        """Enqueue the engine on `stream`, after whatever made its inputs; returns at once."""
        if self._context is None:
            raise self._refusal("run", "the session is closed", "open it again")
        queue = self._pool.stream if stream is None else cast(CudaStream, stream)
        with self._pool.cuda.current():
            self._wait_for_last(queue)
            reads = self._bind_inputs(inputs, queue)
            outputs = self._bind_outputs(queue)
            try:
                done = self._context.execute_async_v3(queue.handle)
            finally:
                # Also after a failure: part of the work may be under way.
                self._last = (queue, self._pool.used(reads, outputs.values(), queue))
        if not done:
            raise self._refusal("run", self._sdk.log.take(), "run `edgeseg verify` on the bundle")
        return dict(outputs)

    def close(self) -> None:
        """Free the engine and all memory that no tensor holds."""
        with self._pool.cuda.current():
            if self._last is not None:
                self._last[1].synchronize()
            self._context = self._engine = self._runtime = self._last = None
            self._pool.trim()

    def _wait_for_last(self, stream: CudaStream) -> None:
        # One context has one scratch memory: runs of it never overlap, whatever their streams.
        if self._last is not None and self._last[0] is not stream:
            stream.wait(self._last[1])

    def _bind_inputs(self, inputs: Mapping[str, Tensor], stream: CudaStream) -> list[DeviceTensor]:
        expected = {spec.name for spec in self._graph.inputs}
        if set(inputs) != expected:
            raise self._refusal("run", f"inputs {sorted(inputs)}, not {sorted(expected)}", "give exactly these")
        tensors = []
        for spec in self._graph.inputs:
            tensor = self._own("run", inputs[spec.name])
            if tensor.dtype != np.dtype(spec.dtype):
                raise self._refusal("run", f"{spec.name} is {tensor.dtype}, not {spec.dtype}", "convert it")
            self._set_shape(spec.name, tensor.shape)
            tensor.readable_on(stream)
            self._set_address(spec.name, tensor)
            tensors.append(tensor)
        return tensors

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            allowed = [tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, 0)]
            found = f"{name} is {shape}, and the engine takes {allowed[0]} to {allowed[-1]} ({self._sdk.log.take()})"
            raise self._refusal("run", found, "give a shape in that range")
        self._shapes[name] = shape

    def _bind_outputs(self, stream: CudaStream) -> dict[str, DeviceTensor]:
        outputs = {}
        for spec in self._graph.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                raise self._refusal("run", f"the shape of {spec.name} depends on data: {shape}", "export it again")
            outputs[spec.name] = self._pool.tensor(shape, spec.dtype, stream)
            self._set_address(spec.name, outputs[spec.name])
        return outputs

    def _set_address(self, name: str, tensor: DeviceTensor) -> None:
        if not self._context.set_tensor_address(name, tensor.pointer):
            raise self._refusal("run", self._sdk.log.take(), f"run `{self._rebuild}`")

    def _check_io(self) -> None:
        trt, engine = self._sdk.trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        for specs, wanted in ((self._graph.inputs, True), (self._graph.outputs, False)):
            found = {name for name in names if is_input[name] is wanted}
            if found != {spec.name for spec in specs}:
                raise self._refusal("open", f"its tensors are {sorted(names)}", f"run `{self._rebuild}`")
            for spec in specs:
                self._check_tensor(spec)

    def _check_tensor(self, spec: TensorSpec) -> None:
        dtype = self._engine.get_tensor_dtype(spec.name)
        if numpy_dtype(self._sdk.trt, dtype) != np.dtype(spec.dtype):
            raise self._refusal("open", f"{spec.name} is {dtype}, not {spec.dtype}", f"run `{self._rebuild}`")
        if self._engine.get_tensor_location(spec.name) != self._sdk.trt.TensorLocation.DEVICE:
            raise self._refusal("open", f"{spec.name} must be in host memory", "export the graph again")

    def _own(self, verb: str, tensor: Tensor) -> DeviceTensor:
        if not isinstance(tensor, DeviceTensor):
            raise self._refusal(verb, f"a {type(tensor).__name__} instead of a device tensor", "upload it first")
        return tensor

    def _refusal(self, verb: str, found: str, todo: str) -> BackendError:
        return BackendError(f"{verb} the {self._sdk.name} engine of {self._graph.name!r}", found, todo)
