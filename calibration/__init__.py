"""Turns fp32 graphs into graphs of lower precision. Imported as `edgeseg.calibration`; knows no torch, no TensorRT."""
