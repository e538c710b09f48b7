"""Compiles a small self-contained graph with the SDK that runs the engines, for what is measured on the spot.

Engines of a bundle are the stage `engines`' work; this is for a device that has only the runtime and its compiler. It
imports no SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeseg.backends.trt_session import Sdk
from edgeseg.errors import BackendError


def compile_model(sdk: Sdk, model: bytes, adjust: Callable[[Any, Any], None] | None = None) -> bytes:
    """The engine of an ONNX model that is all in `model`, its precision as its types say.

    Args:
        sdk: the imported TensorRT.
        model: a serialised ONNX model without external data.
        adjust: called with the SDK's module and the builder's configuration, to compile for a device that is not here.

    Raises:
        BackendError: the SDK refuses it.
    """
    trt, log = sdk.trt, sdk.log
    builder = trt.Builder(log)
    kinds = trt.NetworkDefinitionCreationFlag
    wanted = [getattr(kinds, name, None) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")]
    network = builder.create_network(sum(1 << int(flag) for flag in wanted if flag is not None))
    parser = trt.OnnxParser(network, log)
    plan = None
    if parser.parse(model):
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # as in the bundle's engines
        half = getattr(trt.BuilderFlag, "FP16", None)
        if not hasattr(kinds, "STRONGLY_TYPED") and half is not None:
            config.set_flag(half)  # TensorRT 8.6 computes in half precision only where it is allowed to
        if adjust is not None:
            adjust(trt, config)
        plan = builder.build_serialized_network(network, config)
    del parser  # it owns the graph's weights until the engine is built
    if plan is None:
        raise BackendError(f"compile a graph with {sdk.name}", log.take(), "see `edgeseg doctor`")
    return bytes(plan)
