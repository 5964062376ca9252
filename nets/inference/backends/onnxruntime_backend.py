"""ONNX Runtime, on the CPU or an NVIDIA GPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.io.exported import INPUT, output_names, runtime_errors, unpack
from utils.core.errors import UserError


class OnnxRuntimeBackend:
    """ONNX Runtime in float32 with as many threads as PyTorch uses.

    Args:
        spec: the model.
        precision: "fp32".
        device: the CPU or an NVIDIA GPU.
    """

    name = "onnxruntime"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        import onnxruntime  # `choose_device` has checked that it is installed

        self.precision = precision
        self.num_classes = len(spec.names)
        self.outputs = output_names(spec.exported)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # its errors are raised, too
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        self.file = spec.file(".onnx")
        with runtime_errors(self.file, "ONNX Runtime cannot load it"):
            self.session = onnxruntime.InferenceSession(
                str(self.file), options, providers=providers, enable_fallback=0
            )
        if device.type == "cuda" and "CUDAExecutionProvider" not in self.session.get_providers():
            raise UserError(  # it would run on the CPU without a word
                f"device={device}: ONNX Runtime cannot use CUDA here, its CUDA or cuDNN does not "
                "fit; use device=cpu or backend=torch"
            )

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        # in NumPy: PyTorch's threads spin after an operation, and take the cores from the session's
        pixels = np.ascontiguousarray(canvases.numpy().transpose(0, 3, 1, 2))
        images = np.divide(pixels, np.float32(255))
        with runtime_errors(self.file, "ONNX Runtime cannot run it"):
            outputs = self.session.run(self.outputs, {INPUT: images})
        return unpack(outputs, self.num_classes)
