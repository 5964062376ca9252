"""What runs the network: PyTorch, compiled PyTorch, ONNX Runtime, OpenVINO, ncnn and LiteRT.

To add one, add a file with a class that implements `Backend`, and entries in `BACKENDS` and
`MAKERS`.
"""

from nets.inference.backends.base import (
    BACKENDS,
    Backend,
    ModelSpec,
    choose_device,
    choose_precision,
)
from nets.inference.backends.selection import make_backend

__all__ = [
    "BACKENDS",
    "Backend",
    "ModelSpec",
    "choose_device",
    "choose_precision",
    "make_backend",
]
