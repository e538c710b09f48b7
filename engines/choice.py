"""Which SDK builds: the one asked for, or the best one that works on this machine."""

from __future__ import annotations

from edgeseg.backends import get_backend
from edgeseg.backends.base import Probe
from edgeseg.errors import BackendError, BuildError

from .compiler import Compiler

ORDER = ("tensorrt", "tensorrt_rtx", "onnxruntime")  # fastest first
TARGETED = "tensorrt_rtx"


def choose(backend: str | None, targets: tuple[str, ...]) -> Compiler:
    """The compiler for a backend's name, or for None the best that works here; `targets` need TensorRT-RTX.

    Raises:
        BackendError: the backend does not work here; the reason says what to install.
        BuildError: a target that nothing here can compile for.
    """
    if targets and backend not in (None, TARGETED):
        found = f"{backend} builds only for the machine it runs on"
        raise BuildError(f"build for {','.join(targets)}", found, f"use --backend {TARGETED}, or build on the device")
    if backend is not None or targets:
        return _compiler(backend or TARGETED, targets)
    reasons = []
    for name in ORDER:
        probe = get_backend(name).probe()
        if probe.works:
            return make(name, probe, ())
        reasons.append(f"{name}: {probe.why}")
    raise BackendError("build an engine", "; ".join(reasons), "install one, see `edgeseg doctor`")


def _compiler(name: str, targets: tuple[str, ...]) -> Compiler:
    probe = get_backend(name).probe()
    if not (probe.works or probe.builds):
        raise BackendError(f"build with {name}", probe.why, "run `edgeseg doctor` for what works here")
    return make(name, probe, targets)


def make(name: str, probe: Probe, targets: tuple[str, ...]) -> Compiler:
    """The compiler of a backend that was found to build here."""
    if name == "tensorrt":
        from .tensorrt import TensorRTCompiler

        return TensorRTCompiler(probe)
    if name == "tensorrt_rtx":
        from .tensorrt_rtx import TensorRTRTXCompiler

        return TensorRTRTXCompiler(probe, targets)
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeCompiler

        return OnnxRuntimeCompiler(probe)
    raise BuildError(f"build with {name!r}", "there is no such backend", f"use one of {', '.join(ORDER)}")
