"""NVIDIA's TensorRT, 8.6 and 10.0 to 11: what JetPack brings, and the datacenter's wheel. To build it needs its GPU."""

from __future__ import annotations

from typing import Any

from edgeseg.backends.base import Probe
from edgeseg.backends.jetson import jetson_hint
from edgeseg.backends.trt_backend import TrtBackend
from edgeseg.errors import BackendError


class TensorRTBackend(TrtBackend):
    """Engines of full TensorRT. One per thread."""

    name = "tensorrt"
    key = "trt"

    def import_sdk(self) -> Any:
        """The module tensorrt."""
        import tensorrt

        return tensorrt

    def no_sdk(self, error: BackendError) -> Probe:
        """On a Jetson the SDK comes with JetPack, so pip is the wrong advice there."""
        return Probe(False, None, f"{error.found}; {jetson_hint() or error.todo}")
