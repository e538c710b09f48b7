"""Turns a checkpoint into a bundle of fp32 ONNX graphs, a vocabulary and reference tensors. Imported as `edgeseg.export`."""
