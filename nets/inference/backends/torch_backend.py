"""PyTorch, eager or compiled, or from a TorchScript file."""

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.io.exported import runtime_errors, silence
from nets.yolo.pipeline import Pipeline
from utils.core.devices import lay_channels_last
from utils.core.errors import UserError
from utils.core.inputs import read_file


class TorchBackend:
    """PyTorch with folded batch normalization, channels last, and autocast below fp32.

    Args:
        spec: the model.
        precision: "fp32", "bf16" or "fp16".
        device: the device to compute on.
    """

    name = "torch"
    run: Callable[[Tensor], tuple[Tensor, Tensor]]

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        if spec.exported:
            self.run = self._load(spec.exported.path)
            return
        self.pipeline = Pipeline(spec.network, spec.config.input_size, precision).to(device)
        lay_channels_last(self.pipeline)
        self.run = self.pipeline.detect

    def _load(self, path: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        if self.precision != "fp32":
            raise UserError(
                f"precision={self.precision}: {path} computes in fp32, as all TorchScript files do"
            )
        with runtime_errors(path, "PyTorch cannot load it"), silence():
            module = torch.jit.load(io.BytesIO(read_file(path)), map_location=self.device)

        def run(canvases: Tensor) -> tuple[Tensor, Tensor]:
            with runtime_errors(path, "PyTorch cannot run it"):
                return module(canvases.permute(0, 3, 1, 2).float().div_(255))

        return run

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

    # in inference mode, and for its tensors, the compiler would compile once more
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        canvases = canvases.to(self.device, non_blocking=True)
        try:
            return self.run(canvases.clone() if canvases.is_inference() else canvases)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).split("\n")[-1] or type(error).__name__
            raise UserError(
                f"backend=compile: PyTorch cannot compile here; is a compiler installed? {reason}"
            ) from None
