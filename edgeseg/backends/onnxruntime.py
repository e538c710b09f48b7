"""The onnxruntime backend: the CPU by default, a CUDA device where onnxruntime was installed with it.

Why the options are what they are:

1. Denormal numbers are flushed to zero: the softmax over masks of -100 makes them, and they slow a CPU down a
   hundredfold.
2. One thread per physical core, because matrix products do not gain from hyper-threads; threads stop spinning when a
   run ends, because the next stage (numpy) wants the cores.
3. All sessions share one arena that grows by what is asked, so a chain's peak is its largest graph, not the sum of
   them.
4. On an x86 without VNNI, whose integer products would overflow, weights are made unsigned: an engine's device key does
   not tell on which kind it was made. Elsewhere that would cost more than half of the speed.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeseg.backends.base import Array, Probe, Session, Stream, Tensor
from edgeseg.backends.denormals import flush_denormals
from edgeseg.backends.feed import check_feed
from edgeseg.backends.host import HostStream, HostTensors, overflows, physical_cores
from edgeseg.errors import BackendError
from edgeseg.schema import GraphSpec

CUDA = "CUDAExecutionProvider"
INSTALL = 'pip install "edgeseg[onnxruntime]"'

_WRONG_FOR_FP8 = "ReluQuantRewrite"  # takes the zero of fp8 for its smallest number, and drops a Relu before it
_GROW_AS_REQUESTED = 1  # onnxruntime's arena_extend_strategy, documented numbers of its C API


@functools.cache
def _sdk() -> Any:
    """The onnxruntime package, its shared arena registered. Raises BackendError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError("use onnxruntime", f"it does not import ({error})", f"install it: {INSTALL}") from None
    onnxruntime.set_default_logger_severity(3)  # errors; each of them is raised as well
    arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": _GROW_AS_REQUESTED})
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, arena)
    return onnxruntime


class OnnxRuntimeBackend:
    """See the module's text.

    Args:
        threads: CPU threads of a session; None takes one per physical core.
    """

    name = "onnxruntime"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or physical_cores()

    def probe(self, device: int = 0) -> Probe:
        """The CPU, or the CUDA provider if this onnxruntime has one."""
        try:
            sdk = _sdk()
        except BackendError as error:
            return Probe(False, None, f"{error.found}; {error.todo}")
        versions = {"onnxruntime": str(sdk.__version__)}
        if CUDA in sdk.get_available_providers():
            return Probe(True, f"cuda-ort{sdk.__version__}", f"CUDA device {device}", versions, builds=True)
        why = f"{platform.machine()} CPU, {self._threads} threads"
        return Probe(True, f"cpu-{platform.machine()}", why, versions, builds=True)

    def open(self, engine: Path, graph: GraphSpec, device: int = 0) -> Session:
        """Open an ONNX file. Raises BackendError."""
        sdk = _sdk()
        on_cuda = CUDA in sdk.get_available_providers()
        providers = [(CUDA, {"device_id": device})] if on_cuda else []
        try:
            inference = sdk.InferenceSession(
                str(engine),
                self._options(sdk, graph),
                providers=[*providers, "CPUExecutionProvider"],
                disabled_optimizers=[_WRONG_FOR_FP8],
            )
        except Exception as error:  # the SDK raises a dozen classes of its own
            todo = "check the file with `edgeseg verify`, or update onnxruntime"
            raise BackendError(f"open {engine} with onnxruntime {sdk.__version__}", str(error), todo) from error
        if on_cuda and CUDA in inference.get_providers():
            return BoundSession(inference, graph, "cuda", device)
        return HostSession(inference, graph)

    def streams(self, count: int, device: int = 0) -> list[Stream]:
        """One: onnxruntime orders its own work."""
        return [HostStream()]

    def _options(self, sdk: Any, graph: GraphSpec) -> Any:
        options = sdk.SessionOptions()
        options.graph_optimization_level = sdk.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # A memory pattern is one more block, as large as all activations, beside the arena that already holds them.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.use_env_allocators", "1")
        if overflows():
            options.add_session_config_entry("session.x64quantprecision", "1")
        if graph.form == "typed" and graph.precision in ("fp8", "mixed"):
            # It would move fp8 through operators that do not take it.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        return options


class HostSession(HostTensors):
    """A graph on the CPU; tensors are numpy arrays."""

    def __init__(self, inference: Any, graph: GraphSpec) -> None:
        self._inference, self._graph = inference, graph
        self._outputs = [spec.name for spec in graph.outputs]

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Any]:
        """Run the graph. Raises BackendError, for a feed that does not fit and for whatever onnxruntime raises."""
        _check_open(self._inference, self._graph)
        check_feed(self._graph, inputs)
        try:
            with flush_denormals():
                arrays = self._inference.run(self._outputs, dict(inputs))
        except Exception as error:  # the SDK raises a dozen classes of its own
            raise _failed(self._graph, error) from error
        return dict(zip(self._outputs, arrays, strict=True))

    def close(self) -> None:
        """Free the graph's weights."""
        self._inference = None


class DeviceTensor:
    """An `OrtValue` where onnxruntime's provider runs."""

    def __init__(self, value: Any, dtype: np.dtype[Any]) -> None:
        self.value = value
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype = dtype


class BoundSession:
    """A graph on a device, with inputs and outputs bound there, so that nothing is copied through the host."""

    def __init__(self, inference: Any, graph: GraphSpec, kind: str, device: int) -> None:
        self._inference, self._graph = inference, graph
        self._kind, self._device = kind, device

    def upload(self, array: Array) -> DeviceTensor:
        """A copy of the array on the device."""
        contiguous = np.ascontiguousarray(array)
        value = _sdk().OrtValue.ortvalue_from_numpy(contiguous, self._kind, self._device)
        return DeviceTensor(value, contiguous.dtype)

    def run(self, inputs: Mapping[str, Tensor], stream: Stream | None = None) -> dict[str, Tensor]:
        """Run the graph. Raises BackendError, for a feed that does not fit and for whatever onnxruntime raises."""
        _check_open(self._inference, self._graph)
        check_feed(self._graph, inputs)
        binding = self._inference.io_binding()
        for name, tensor in inputs.items():
            binding.bind_ortvalue_input(name, cast(DeviceTensor, tensor).value)
        for spec in self._graph.outputs:
            binding.bind_output(spec.name, self._kind, self._device)
        try:
            self._inference.run_with_iobinding(binding)
        except Exception as error:  # the SDK raises a dozen classes of its own
            raise _failed(self._graph, error) from error
        dtypes = [np.dtype(spec.dtype) for spec in self._graph.outputs]
        values = map(DeviceTensor, binding.get_outputs(), dtypes)
        return {spec.name: value for spec, value in zip(self._graph.outputs, values, strict=True)}

    def download(self, tensor: Tensor) -> Array:
        """A copy on the host."""
        return cast(Array, cast(DeviceTensor, tensor).value.numpy())

    def close(self) -> None:
        """Free the graph's weights."""
        self._inference = None


def _check_open(inference: Any, graph: GraphSpec) -> None:
    if inference is None:
        raise BackendError(f"run the graph {graph.name}", "the session is closed", "open it again")


def _failed(graph: GraphSpec, error: Exception) -> BackendError:
    todo = "check the bundle with `edgeseg verify`; if it fails there too, report it"
    return BackendError(f"run the graph {graph.name}", f"onnxruntime says: {error}", todo)
