"""Decoding of the network's raw maps into boxes and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STRIDES = (32, 16, 8)  # of the heads, in the order of the network's outputs; the first two or all
MAX_LOG_SIZE = 10.0  # exp(10) anchors: larger than any image, and finite when squared in float32


@dataclass(frozen=True)
class DarknetBoxes:
    """The anchors of one of Darknet's files.

    Attributes:
        anchors: (width, height) in pixels.
        masks: indices of the three anchors of each head.
        side: width and height of the input that the anchors belong to, pixels.
    """

    anchors: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, int, int], ...]
    side: int


# number of heads: what Darknet has for it, yolov4-tiny.cfg and yolov4-tiny-3l.cfg
# fmt: off
DARKNET = {
    2: DarknetBoxes(
        ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)),
        ((3, 4, 5), (1, 2, 3)),
        416,
    ),
    3: DarknetBoxes(
        (
            (12, 16), (19, 36), (40, 28),
            (36, 75), (76, 55), (72, 146),
            (142, 110), (192, 243), (459, 401),
        ),
        ((6, 7, 8), (3, 4, 5), (0, 1, 2)),
        608,
    ),
}
# fmt: on


def map_sizes(size: tuple[int, int], heads: int) -> list[tuple[int, int]]:
    """Return (height, width) of each head's map for an input of (height, width) pixels."""
    return [(size[0] // stride, size[1] // stride) for stride in STRIDES[:heads]]


@dataclass(frozen=True, eq=False)
class PredictionGrid:
    """The grid cell, anchor and stride that each of the N predictions of an image belongs to.

    Attributes:
        cell: float32 `(N, 2)`, column and row of the grid cell.
        anchor: float32 `(N, 2)`, width and height in input pixels.
        stride: float32 `(N, 1)`, size of a grid cell in input pixels.
    """

    cell: Tensor
    anchor: Tensor
    stride: Tensor

    def __getitem__(self, index: Tensor) -> "PredictionGrid":
        return PredictionGrid(self.cell[index], self.anchor[index], self.stride[index])


class BoxCoder(nn.Module):
    """The box parametrization of Darknet's `[yolo]` layer, in both variants.

    With grid cell g, stride s, anchor p and k = `scale_x_y`:

        center = (k * sigmoid(t_xy) - (k - 1) / 2 + g) * s
        size   = p * exp(t_wh)               new_coords = false, k = 1.05 (for pretrained weights)
        size   = p * (2 * sigmoid(t_wh))^2   new_coords = true,  k = 2 (at most 4 anchors)

    Args:
        anchors: (width, height) in input pixels.
        masks: indices of the three anchors of each head, two or three heads.
        new_coords: which of the two size formulas to use.
        scale_x_y: k; None: 2 with `new_coords`, else 1.05.

    Attributes:
        strides: of the heads, the first of `STRIDES`.
    """

    anchors: Tensor

    def __init__(
        self,
        anchors: Sequence[Sequence[float]],
        masks: Sequence[Sequence[int]],
        new_coords: bool = True,
        scale_x_y: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer(
            "anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False
        )
        self.masks = tuple(tuple(mask) for mask in masks)
        self.strides = STRIDES[: len(self.masks)]
        self.new_coords = new_coords
        self.scale_x_y = scale_x_y or (2.0 if new_coords else 1.05)

    def _apply(self, *args: Any, **kwargs: Any) -> "BoxCoder":
        """Let the anchors move, but keep float32: as half precision, they would stay rounded."""
        anchors = self.anchors
        super()._apply(*args, **kwargs)
        if self.anchors.dtype != anchors.dtype:
            self.anchors = anchors.to(self.anchors.device)
        return self

    def make_grid(self, map_sizes: Sequence[tuple[int, int]]) -> PredictionGrid:
        """Return the grid for maps of these (height, width), by head, anchor, row and column."""
        heads = [
            self._head_grid(size, stride, mask)
            for size, stride, mask in zip(map_sizes, self.strides, self.masks, strict=True)
        ]
        return PredictionGrid(
            torch.cat([head.cell for head in heads]),
            torch.cat([head.anchor for head in heads]),
            torch.cat([head.stride for head in heads]),
        )

    def _head_grid(
        self, size: tuple[int, int], stride: int, mask: tuple[int, ...]
    ) -> PredictionGrid:
        height, width = size
        device = self.anchors.device
        rows, columns = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        cell = torch.stack([columns, rows], -1).view(-1, 2).repeat(len(mask), 1).float()
        anchor = self.anchors[list(mask)].repeat_interleave(height * width, 0)
        return PredictionGrid(cell, anchor, torch.full_like(cell[:, :1], stride))

    def decode_boxes(self, logits: Tensor, grid: PredictionGrid) -> Tensor:
        """Decode box logits `(..., 4)` into float32 boxes `(..., 4)`, xyxy in input pixels."""
        logits = logits.float()
        k = self.scale_x_y
        center = (logits[..., :2].sigmoid() * k - (k - 1) / 2 + grid.cell) * grid.stride
        if self.new_coords:
            size = (2 * logits[..., 2:4].sigmoid()).square() * grid.anchor
        else:
            size = logits[..., 2:4].clamp(max=MAX_LOG_SIZE).exp() * grid.anchor
        return torch.cat([center - size / 2, center + size / 2], -1)

    def forward(
        self, maps: Sequence[Tensor], grid: PredictionGrid | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode the raw maps of a batch.

        Args:
            maps: `(B, 3*(5+C), h, w)` of each head.
            grid: `make_grid` for the maps' sizes; None: computed in this call.

        Returns:
            Boxes `(B, N, 4)`, xyxy in input pixels, and scores `(B, N, C)`, objectness times class
            probability, 0..1; both float32.
        """
        if grid is None:
            grid = self.make_grid([(m.shape[2], m.shape[3]) for m in maps])
        logits = flatten_maps(maps)
        boxes = self.decode_boxes(logits[..., :4], grid)
        return boxes, logits[..., 4:5].float().sigmoid() * logits[..., 5:].float().sigmoid()


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """Flatten maps `(B, 3*(5+C), h, w)` of all heads to `(B, N, 5+C)`, ordered like the grid."""
    return torch.cat([_flatten(m) for m in maps], 1)


def _flatten(m: Tensor) -> Tensor:
    # by `reshape`: opset 12 of ONNX has no `unflatten`
    anchors = m.reshape(m.shape[0], 3, -1, *m.shape[2:])
    return anchors.permute(0, 1, 3, 4, 2).flatten(1, 3)
