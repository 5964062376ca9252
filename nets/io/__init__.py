"""File formats of weights and networks: checkpoints, Darknet, ONNX, the reference implementation."""
