"""What TensorRT 8.6 alone needs: it has no strong typing, so lower precisions are builder flags on an fp32 graph.

The fp32 master and the plain form of an int8 graph are already what 8.6 reads (opset 17, LayerNormalization as one
node, fp32 scales), so nothing is rewritten.
"""

from __future__ import annotations

from typing import Any

from edgeseg.islands import is_fp32_scope

REDUCED = ("fp16", "int8")  # what it takes from builder flags


def is_legacy(trt: Any) -> bool:
    """Whether this TensorRT takes precisions from builder flags because it cannot take them from the graph."""
    return not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def allow_reduced(trt: Any, network: Any, config: Any, precision: str) -> None:
    """Let the builder use fp16, except in the layers that an fp16 graph of ours would keep in fp32.

    With the precision "int8" also the integer products that the graph's QuantizeLinear and DequantizeLinear ask for.
    """
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if is_fp32_scope(layer.name) and layer.get_output(0).dtype == trt.float32:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
