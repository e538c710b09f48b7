"""The one naming rule that export, calibration and engines share: which nodes of a graph stay fp32 in an fp16 graph."""

from __future__ import annotations

FP32_SCOPE = "fp32_"


def is_fp32_scope(node_name: str) -> bool:
    """Whether a segment of a node's path starts with "fp32_": "/head/fp32_coordinates/Mul" does."""
    return any(segment.startswith(FP32_SCOPE) for segment in node_name.split("/"))
