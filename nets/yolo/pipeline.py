"""From images to boxes and scores in one module: what every backend runs."""

import torch
from torch import Tensor, nn

from nets.yolo.box_coder import STRIDES
from nets.yolo.fuse import fold_batch_norms
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.devices import DTYPES, autocast


class Pipeline(nn.Module):
    """Images `(B, 3, H, W)`, RGB, 0..1, float32 -> boxes `(B, N, 4)`, xyxy input pixels, and scores `(B, N, C)`, 0..1.

    A copy of the network with batch normalization folded, followed by its box coder. What became of the network's
    weights later is not seen.

    Args:
        network: on the device where the pipeline is to run. size: (height, width) of its input, pixels.
        precision: "fp32", "bf16" or "fp16", through autocast; boxes and scores are float32 in any case.
    """

    def __init__(self, network: YOLOv4Tiny, size: tuple[int, int], precision: str = "fp32") -> None:
        super().__init__()
        self.network = fold_batch_norms(network)
        self.coder = network.coder
        self.cells = self.coder.cells(
            [(size[0] // stride, size[1] // stride) for stride in STRIDES]
        )
        self.precision = precision
        if precision != "fp32":
            self._narrow(DTYPES[precision])

    def _narrow(self, dtype: torch.dtype) -> None:
        """Convert the convolutions' weights once instead of in every pass; attention blocks are left to autocast."""
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("attention."):
                module.to(dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, images.device):
            maps = self.network(images)
        return self.coder(maps, self.cells)

    def detect(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """The same from uint8 canvases `(B, H, W, 3)`."""
        return self(canvases.permute(0, 3, 1, 2).float().div_(255))
