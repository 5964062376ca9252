"""Raw maps -> boxes and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (32, 16)  # of the two heads, in the order of the network's outputs
MAX_LOG_SIZE = 10.0  # exp(10) anchors: beyond any image, and finite when squared in float32


@dataclass(frozen=True)
class Cells:
    """Where each of the N predictions of an image sits: `grid` (N, 2) cell x, y; `anchor` (N, 2); `stride` (N, 1)."""

    grid: Tensor
    anchor: Tensor
    stride: Tensor


class BoxCoder(nn.Module):
    """The box parametrization of Darknet's `[yolo]` layer, both kinds.

    With grid cell g, stride s, anchor (p_w, p_h) and stretch k = `scale_x_y`:

        center = (k * sigmoid(t_xy) - (k - 1) / 2 + g) * s
        size   = anchor * exp(t_wh)               new_coords = false, k = 1.05 (what pretrained weights need)
        size   = anchor * (2 * sigmoid(t_wh))^2   new_coords = true,  k = 2 (bounded by 4 anchors)

    Args:
        anchors: (width, height) in input pixels. masks: for each head (strides 32, 16) its three anchor indices.
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
        self.new_coords = new_coords
        self.scale_x_y = scale_x_y or (2.0 if new_coords else 1.05)

    def cells(self, shapes: Sequence[tuple[int, int]]) -> Cells:
        """The layout for maps of the given (height, width): head by head, anchor by anchor, row by row."""
        parts = [self._head_cells(shape, head) for head, shape in enumerate(shapes)]
        grid, anchor, stride = (torch.cat(column) for column in zip(*parts, strict=True))
        return Cells(grid, anchor, stride)

    def _head_cells(self, shape: tuple[int, int], head: int) -> tuple[Tensor, Tensor, Tensor]:
        height, width = shape
        device = self.anchors.device
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        mask = self.masks[head]
        grid = (
            torch.stack([x, y], -1).view(1, -1, 2).expand(len(mask), -1, -1).reshape(-1, 2).float()
        )
        anchor = self.anchors[list(mask)].repeat_interleave(height * width, 0)
        return grid, anchor, torch.full((len(grid), 1), float(STRIDES[head]), device=device)

    def boxes(self, raw: Tensor, cells: Cells) -> Tensor:
        """Logits `(..., 4)` and the cells they belong to -> float32 xyxy boxes in input pixels, `(..., 4)`."""
        raw = raw.float()
        stretch = self.scale_x_y
        center = (raw[..., :2].sigmoid() * stretch - (stretch - 1) / 2 + cells.grid) * cells.stride
        if self.new_coords:
            size = (2 * raw[..., 2:4].sigmoid()).square() * cells.anchor
        else:
            size = raw[..., 2:4].clamp(max=MAX_LOG_SIZE).exp() * cells.anchor
        return torch.cat([center - size / 2, center + size / 2], -1)

    def forward(self, maps: Sequence[Tensor], cells: Cells | None = None) -> tuple[Tensor, Tensor]:
        """Raw maps -> boxes `(B, N, 4)`, xyxy input pixels, and scores `(B, N, C)`, objectness times class, 0..1.

        `cells` is `self.cells` of the maps' sizes, where it is made once for many calls.
        """
        raw = flatten_maps(maps)
        boxes = self.boxes(
            raw[..., :4], cells or self.cells([(m.shape[2], m.shape[3]) for m in maps])
        )
        return boxes, raw[..., 4:5].float().sigmoid() * raw[..., 5:].float().sigmoid()


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """Maps `(B, 3*(5+C), h, w)` of all heads -> `(B, N, 5+C)`, in the order of `BoxCoder.cells`."""
    flat = [m.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3) for m in maps]
    return torch.cat(flat, 1)
