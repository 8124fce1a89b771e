"""ONNX, INT8 and the variants of a model."""
