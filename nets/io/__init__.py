"""File formats: checkpoints, Darknet, ONNX, and the reference implementation's weights."""
