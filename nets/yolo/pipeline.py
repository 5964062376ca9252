"""From images to boxes and scores in one module, which every backend runs."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nets.yolo.box_coder import BoxCoder, PredictionGrid, map_sizes
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.devices import DTYPES, autocast

GRID = ("cell", "anchor", "stride")  # of a `PredictionGrid`
FOLDED_PACKAGES = ("nets", "torch")  # whose modules may contain folded layers


class Pipeline(nn.Module):
    """A copy of the network with batch normalization folded, followed by its box coder.

    Later changes to the network do not affect it, and moving it moves all of it.

    Args:
        network: the network.
        size: (height, width) of the input, pixels.
        precision: "fp32", "bf16" or "fp16", through autocast; boxes and scores are always float32.
    """

    def __init__(self, network: YOLOv4Tiny, size: tuple[int, int], precision: str = "fp32") -> None:
        super().__init__()
        self.network = fold_batch_norms(network)
        self.coder: BoxCoder = self.network.get_submodule("coder")  # type: ignore[assignment]
        grid = self.coder.make_grid(map_sizes(size, len(self.coder.masks)))
        for name in GRID:
            self.register_buffer(name, getattr(grid, name), persistent=False)
        self.precision = precision
        if precision != "fp32":
            self._cast_convolutions(DTYPES[precision])

    def _cast_convolutions(self, dtype: torch.dtype) -> None:
        """Cast the weights once, not in every forward pass; autocast handles attention blocks."""
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("attention."):
                module.to(dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute boxes and scores.

        Args:
            images: float32 `(B, 3, H, W)`, RGB, 0..1.

        Returns:
            Boxes `(B, N, 4)`, xyxy in input pixels, and scores `(B, N, C)`, 0..1; both float32.
        """
        with autocast(self.precision, images.device):
            maps = self.network(images)
        return self.coder(maps, PredictionGrid(*(self.get_buffer(name) for name in GRID)))

    def detect(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Like `forward`, for uint8 images `(B, H, W, 3)`, RGB, 0..255."""
        return self(canvases.permute(0, 3, 1, 2).float().div_(255))


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with batch normalization folded into the convolutions.

    A convolution directly followed by batch normalization in an `nn.Sequential` becomes one
    convolution with bias: in every `ConvBNAct`, and in this project's attention blocks built the
    same way. Pairs connected by a custom `forward`, normalizations without running statistics,
    and blocks from elsewhere, which may use the two layers apart, are left unchanged. The outputs
    agree up to rounding.
    """
    network = copy.deepcopy(network).eval()
    _fold_inside(network)
    return network


def _fold_inside(module: nn.Module) -> None:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        _fold_neighbors(module)
    for child in module.children():
        if type(child).__module__.partition(".")[0] in FOLDED_PACKAGES:
            _fold_inside(child)


def _fold_neighbors(sequence: nn.Sequential) -> None:
    for first, second in pairwise(list(sequence._modules)):
        conv, norm = sequence.get_submodule(first), sequence.get_submodule(second)
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.running_var is not None:
            setattr(sequence, first, fuse_conv_bn_eval(conv, norm))
            setattr(sequence, second, nn.Identity())
