"""NVIDIA's TensorRT for RTX: compiles ahead of time, on a machine without a GPU too; the device finishes the engine."""

from __future__ import annotations

from typing import Any

from edgeseg.backends.base import Probe
from edgeseg.backends.cuda.base import Cuda
from edgeseg.backends.keys import target
from edgeseg.backends.trt_backend import TrtBackend


class TensorRTRTXBackend(TrtBackend):
    """Engines of TensorRT for RTX. One per thread."""

    name = "tensorrt_rtx"
    key = "rtx"

    def import_sdk(self) -> Any:
        """The module tensorrt_rtx."""
        import tensorrt_rtx

        return tensorrt_rtx

    def no_device(self, trt: Any, reason: str, versions: dict[str, str]) -> Probe:
        """Without a device it still builds, for the devices it is told."""
        why = f"TensorRT-RTX {trt.__version__} builds here for other machines, and runs nothing: {reason}"
        return Probe(False, None, why, versions, builds=True)

    def why_not(self, trt: Any, cuda: Cuda) -> str | None:
        """It has a fixed list of architectures, without Jetson Orin and the datacenter's Hopper."""
        architecture = target(cuda.properties.capability)
        if hasattr(trt.ComputeCapability, architecture.upper()):
            return None
        return f"it does not support {cuda.properties.name} ({architecture}); use --backend tensorrt"
