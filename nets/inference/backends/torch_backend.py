"""PyTorch, eager or compiled."""

import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.yolo.pipeline import Pipeline
from utils.core.errors import UserError


class TorchBackend:
    """PyTorch with folded batch normalization, channels last, and autocast below fp32.

    Args:
        spec: the model.
        precision: "fp32", "bf16" or "fp16".
        device: the device to compute on.
    """

    name = "torch"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        pipeline = Pipeline(spec.network, spec.config.input_size, precision)
        self.pipeline: Pipeline = pipeline.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.run = self.pipeline.detect

    @torch.inference_mode()
    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(canvases.to(self.device, non_blocking=True))


class CompiledBackend(TorchBackend):
    """`TorchBackend` through `torch.compile`: constants folded, weights laid out for the CPU.

    The first call compiles, which takes up to a minute and needs a C++ compiler. The second batch
    size triggers one more compilation, which then serves all batch sizes.
    """

    name = "compile"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        super().__init__(spec, precision, device)
        self.run = torch.compile(self.pipeline.detect, options={"freezing": True})

    @torch.no_grad()  # in inference mode the compiler would not recognize the tensors again
    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return self.run(canvases.to(self.device, non_blocking=True))
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).split("\n")[-1] or type(error).__name__
            raise UserError(
                f"backend=compile: PyTorch cannot compile here; is a compiler installed? {reason}"
            ) from None
