"""One file per engine SDK, all behind the seam in `base.py`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.base import Backend

BACKENDS = {
    "tensorrt": "edgeseg.backends.tensorrt:TensorRTBackend",
    "tensorrt_rtx": "edgeseg.backends.tensorrt_rtx:TensorRTRTXBackend",
    "onnxruntime": "edgeseg.backends.onnxruntime:OnnxRuntimeBackend",
    "fake": "edgeseg.backends.fake:FakeBackend",
}
"""Name → "module:class", in the order of preference where several have an engine for this machine."""


def get_backend(name: str, threads: int | None = None) -> Backend:
    """The backend of this name. Imports no SDK: that is done when it is probed or opened.

    Args:
        name: a key of `BACKENDS`.
        threads: CPU threads of a session; None takes one per physical core. Only onnxruntime uses it.

    Raises:
        InputError: there is no such backend.
    """
    if name not in BACKENDS:
        raise InputError(
            f"use the backend {name!r}", "there is none of this name", f"take one of {', '.join(BACKENDS)}"
        )
    module, attribute = BACKENDS[name].split(":")
    kind = getattr(importlib.import_module(module), attribute)
    return cast("Backend", kind(threads) if name == "onnxruntime" else kind())
