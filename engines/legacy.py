"""What TensorRT 8.6 alone needs: it has no strong typing, so half precision is a builder flag on the fp32 graph.

The fp32 master is already what 8.6 reads (opset 17, LayerNormalization as one node), so nothing is rewritten.
"""

from __future__ import annotations

from typing import Any

from edgeseg.islands import is_fp32_scope


def is_legacy(trt: Any) -> bool:
    """Whether this TensorRT takes precisions from builder flags because it cannot take them from the graph."""
    return not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def allow_half(trt: Any, network: Any, config: Any) -> None:
    """Let the builder use fp16, except in the layers that an fp16 graph of ours would keep in fp32."""
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if is_fp32_scope(layer.name) and layer.get_output(0).dtype == trt.float32:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
