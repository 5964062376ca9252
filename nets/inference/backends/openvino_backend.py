"""OpenVINO on the CPU: float32, bfloat16 if the CPU supports it, or int8."""

from typing import Any

import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.inference.backends.int8 import quantized_file
from nets.io.exported import output_names, runtime_errors, unpack

# int8: operations that are not quantized stay in float32
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoBackend:
    """OpenVINO with as many threads as PyTorch uses; its graph includes the conversion from uint8.

    Args:
        spec: the model.
        precision: "fp32", "bf16" or "int8".
        device: the CPU.
    """

    name = "openvino"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        import openvino  # `choose_device` has checked that it is installed

        self.precision = precision
        self.num_classes = len(spec.names)
        self.outputs = output_names(spec.exported)
        core = openvino.Core()
        self.file = quantized_file(spec) if precision == "int8" else spec.file(".onnx", ".xml")
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        with runtime_errors(self.file, "OpenVINO cannot load it"):
            model = _with_canvas_input(openvino, core.read_model(self.file))
            self.model = core.compile_model(model, "CPU", settings)

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        with runtime_errors(self.file, "OpenVINO cannot run it"):
            outputs = self.model([canvases.numpy()])
        return unpack([outputs[name] for name in self.outputs], self.num_classes)


def _with_canvas_input(openvino: Any, model: Any) -> Any:
    """Prepend uint8 `(B, H, W, 3)` -> float32 `(B, 3, H, W)`, 0..1, to the model."""
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
