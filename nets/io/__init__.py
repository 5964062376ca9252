"""File formats: checkpoints, Darknet's, ONNX, the reference implementation's weights."""
