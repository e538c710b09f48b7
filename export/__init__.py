"""Turns a checkpoint into a bundle of fp32 ONNX graphs with reference tensors. Imported as `edgeseg.export`."""
