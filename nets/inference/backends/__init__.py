"""What computes the network: PyTorch, compiled PyTorch, ONNX Runtime or OpenVINO, behind one small interface.

A new backend is one new file with a class like `Backend`, and an entry in `BACKENDS`.
"""

from nets.inference.backends.base import BACKENDS, Backend, Source, choose_device, choose_precision
from nets.inference.backends.fastest import make_backend

__all__ = ["BACKENDS", "Backend", "Source", "choose_device", "choose_precision", "make_backend"]
