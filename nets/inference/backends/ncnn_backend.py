"""ncnn on the CPU, in float32."""

import numpy as np
import torch
from torch import Tensor

from nets.inference.backends.base import ModelSpec
from nets.io.exported import INPUT, OUTPUTS, runtime_errors, silence


class NcnnBackend:
    """ncnn with as many threads as PyTorch uses.

    Args:
        spec: the model.
        precision: "fp32".
        device: the CPU.
    """

    name = "ncnn"

    def __init__(self, spec: ModelSpec, precision: str, device: torch.device) -> None:
        import ncnn  # `choose_device` has checked that it is installed

        self.precision = precision
        self.ncnn = ncnn
        self.file = spec.file(".param")
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = torch.get_num_threads()
        options.use_vulkan_compute = options.use_fp16_packed = options.use_fp16_storage = False
        options.use_fp16_arithmetic = options.use_bf16_storage = False
        with runtime_errors(self.file, "ncnn cannot load it"), silence():
            _check(self.net.load_param(str(self.file)))
            _check(self.net.load_model(str(self.file.with_suffix(".bin"))))

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        images = canvases.permute(0, 3, 1, 2).float().contiguous().div_(255)
        with runtime_errors(self.file, "ncnn cannot run it"):
            boxes, scores = zip(*map(self._run, images.numpy()), strict=True)
        return torch.stack(boxes), torch.stack(scores)

    def _run(self, image: np.ndarray) -> list[Tensor]:
        extractor = self.net.create_extractor()
        _check(extractor.input(INPUT, self.ncnn.Mat(image)))
        outputs = []
        for name in OUTPUTS:
            code, output = extractor.extract(name)
            _check(code)
            outputs.append(torch.from_numpy(np.array(output)))
        return outputs


def _check(code: int) -> None:
    """Raise an error for what ncnn's functions return instead of raising one."""
    if code:
        raise ValueError(f"ncnn's error {code}")
