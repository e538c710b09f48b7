"""NVIDIA devices: one protocol (`base.py`) over cuda-python and pycuda, and a caching memory pool (`memory.py`).

Importing this imports no SDK. `open_device` takes cuda-python if it is installed and a device answers, else pycuda.
"""

from __future__ import annotations

from edgeseg.backends.cuda.base import Cuda
from edgeseg.backends.cuda.cuda_python import CudaPython
from edgeseg.backends.cuda.memory import Pool
from edgeseg.backends.cuda.pycuda import PyCuda
from edgeseg.errors import BackendError

LAYERS = (CudaPython, PyCuda)


def open_device(index: int = 0) -> Cuda:
    """The CUDA device with this index. Raises a BackendError that gives the reason of every layer."""
    reasons = []
    for layer in LAYERS:
        try:
            return layer(index)
        except BackendError as error:
            reasons.append(f"{layer.layer}: {error.found}")
    todo = "install the NVIDIA driver and `pip install 'edgeseg[cuda]'` (on a Jetson see docs/jetson.md)"
    raise BackendError(f"use CUDA device {index}", ", ".join(reasons), todo)


class Devices:
    """The devices that one backend has opened, each with its memory pool; opened when first asked for."""

    def __init__(self) -> None:
        self._pools: dict[int, Pool] = {}

    def pool(self, index: int = 0) -> Pool:
        """The memory of the device with this index. Raises BackendError."""
        if index not in self._pools:
            self._pools[index] = Pool(open_device(index))
        return self._pools[index]
