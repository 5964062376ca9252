"""OpenVINO on the CPU: float32, bfloat16 where the CPU has it, int8."""

from typing import Any

import torch
from torch import Tensor

from nets.inference.backends.base import Source
from nets.inference.backends.int8 import quantized_file

HINTS = {
    "fp32": "f32",
    "bf16": "bf16",
    "int8": "f32",
}  # int8: what is not quantized stays in float32


class OpenVinoBackend:
    """OpenVINO with as many threads as PyTorch uses; the conversion from uint8 is part of its graph."""

    name = "openvino"

    def __init__(self, source: Source, precision: str, device: torch.device) -> None:
        import openvino  # `choose_device` has told where it is missing

        self.precision = precision
        core = openvino.Core()
        model = core.read_model(
            quantized_file(source) if precision == "int8" else source.onnx_file()
        )
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.model = core.compile_model(_taking_canvases(openvino, model), "CPU", settings)

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model([canvases.numpy()])
        return torch.from_numpy(found["boxes"]), torch.from_numpy(found["scores"])


def _taking_canvases(openvino: Any, model: Any) -> Any:
    """Put uint8 `(B, H, W, 3)` -> float32 `(B, 3, H, W)`, 0..1, before the model."""
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
