"""Turns fp32 graphs into graphs of lower precision. Imported as `edgeseg.calibration`; knows no torch, no TensorRT.

For a bundle there is the verb `edgeseg quantize`; for any other vision transformer as ONNX these functions, with an
example in `docs/calibration.md`.
"""

from .library import calibrate_graph, half_body, insert_qdq
from .prepare import prepare
from .ranges import GraphRanges, Ranges, load_ranges, save_ranges

__all__ = [
    "GraphRanges",
    "Ranges",
    "calibrate_graph",
    "half_body",
    "insert_qdq",
    "load_ranges",
    "prepare",
    "save_ranges",
]
