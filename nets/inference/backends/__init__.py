"""What runs the network: PyTorch, compiled PyTorch, ONNX Runtime or OpenVINO, behind one interface.

A new backend is a new file with a class like `Backend`, and an entry in `BACKENDS` and `MAKERS`.
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
