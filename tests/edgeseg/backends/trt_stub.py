"""A stand-in for the module tensorrt: the part of its surface that `trt_session` uses, on the fake device.

Its engine doubles its input and adds a bias. `test_trt_session.py` holds every name here against the lists of the real
bindings, so that the stand-in cannot drift from them.
"""

from types import SimpleNamespace

import numpy as np

MAGIC = b"engine"


class Severity:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self):
        pass


class DataType:
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8 = range(7)  # as in 8.6, which has no INT64


class TensorIOMode:
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation:
    DEVICE, HOST = range(2)


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._shapes, self._addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        self._shapes[name] = shape
        return self._engine._smallest <= shape[-1] <= self._engine._largest

    def get_tensor_shape(self, name):
        return self._shapes["x"]

    def set_tensor_address(self, name, pointer):
        self._addresses[name] = pointer
        return True

    def execute_async_v3(self, stream_handle):
        self._engine._cuda.require_current()
        cuda, shape, at = self._engine._cuda, self._shapes["x"], dict(self._addresses)
        size_bytes = 4 * int(np.prod(shape))

        def kernel():
            x, y = (cuda.view(at[name], size_bytes).view(np.float32) for name in ("x", "y"))
            y[:] = x * 2 + 1

        cuda.streams[stream_handle].enqueue(kernel)
        return True


class ICudaEngine:
    num_io_tensors = 2
    _smallest, _largest = 1, 8

    def __init__(self, cuda):
        self._cuda = cuda

    def get_tensor_name(self, index):
        return ("x", "y")[index]

    def get_tensor_mode(self, name):
        return {"x": TensorIOMode.INPUT, "y": TensorIOMode.OUTPUT}[name]

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_location(self, name):
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name, profile_index):
        return [(1, self._smallest), (1, 4), (1, self._largest)]

    def create_execution_context(self):
        self._cuda.require_current()
        return IExecutionContext(self)


def module(cuda):
    """The stand-in for `import tensorrt` on a fake device."""

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            if bytes(serialized_engine) != MAGIC:
                self._logger.log(Severity.INFO, "Loaded engine size: 0 MiB")
                self._logger.log(Severity.ERROR, "the plan is of another version")
                return None
            cuda.require_current()
            return ICudaEngine(cuda)

    return SimpleNamespace(
        __version__="10.3.0",
        Runtime=Runtime,
        ILogger=ILogger,
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        TensorLocation=TensorLocation,
        ICudaEngine=ICudaEngine,
        IExecutionContext=IExecutionContext,
    )
