"""Export to ONNX and INT8, and the comparison of the variants."""
