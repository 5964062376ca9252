"""LiteRT, formerly TensorFlow Lite, on the CPU, in float32."""

import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.io.exported import INPUT, OUTPUTS, runtime_errors, silence


class LitertBackend:
    """LiteRT with as many threads as PyTorch uses.

    Args:
        spec: the model.
        precision: "fp32".
        device: the CPU.
    """

    name = "litert"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        # `choose_device` has checked that it is installed
        from ai_edge_litert.interpreter import Interpreter

        self.precision = precision
        self.file = spec.file(".tflite")
        with runtime_errors(self.file, "LiteRT cannot load it"), silence():
            interpreter = Interpreter(str(self.file), num_threads=torch.get_num_threads())
            interpreter.allocate_tensors()
            self.run = interpreter.get_signature_runner()

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        with runtime_errors(self.file, "LiteRT cannot run it"):
            outputs = self.run(**{INPUT: canvases.float().div_(255).numpy()})
        boxes, scores = (torch.from_numpy(outputs[name]) for name in OUTPUTS)
        return boxes, scores
