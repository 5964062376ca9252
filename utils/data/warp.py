"""Geometry of the augmentation: one picture, or four that meet at a point, warped into each output picture.

Forward map of tile k, in pixels: `out = mirror(linear @ (in - anchor_in[k]) + anchor_out)`; `anchor_in[k]` is the
corner of tile k that touches the meeting point `anchor_out` (for a single picture: its middle). Mirroring comes last
and is about the middle of the output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_SIDE = 2.0  # pixels: smaller remains of an object are dropped
MIN_VISIBLE = 0.2  # share of an object's area that must remain
OUTSIDE = 9.0  # a `grid_sample` coordinate that reads padding
CORNERS = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0))  # of tiles upper left, upper right, lower left, lower right


@dataclass(frozen=True)
class Geometry:
    """The warp of B output pictures of K tiles each (K is 1 or 4), on one device.

    Attributes:
        linear: `(B, 2, 2)`. anchor_out: `(B, 2)`, x y pixels. mirror: `(B, 2)`, 1 or -1 for x and y.
        tiles: K. size: (height, width) of tiles and output, pixels.
    """

    linear: Tensor
    anchor_out: Tensor
    mirror: Tensor
    tiles: int
    size: tuple[int, int]

    @property
    def extent(self) -> Tensor:
        """(width, height) as a tensor `(2,)`."""
        return torch.tensor([self.size[1], self.size[0]], device=self.linear.device, dtype=torch.float32)

    @property
    def anchor_in(self) -> Tensor:
        """`(K, 2)`, x y in tile pixels."""
        if self.tiles == 1:
            return self.extent[None] / 2
        return torch.tensor(CORNERS, device=self.linear.device) * self.extent


def warp_images(stack: Tensor, geometry: Geometry) -> Tensor:
    """Bilinear sampling. `(B, 3, K*h, w)`, K tiles one above the other -> `(B, 3, h, w)`; 0 where there is no tile."""
    grid = _sampling_grid(geometry)
    return F.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sampling_grid(geometry: Geometry) -> Tensor:
    height, width = geometry.size
    device = geometry.linear.device
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    middle = geometry.extent / 2
    pixel = torch.stack([x, y], -1).float() + 0.5 - middle
    pixel = pixel * geometry.mirror[:, None, None] + middle  # (B, h, w, 2)
    offset = pixel - geometry.anchor_out[:, None, None]
    source = (torch.linalg.inv(geometry.linear)[:, None, None] @ offset[..., None]).squeeze(-1)
    if geometry.tiles == 1:
        return (source + geometry.anchor_in[0]) / geometry.extent * 2 - 1
    tile = (offset[..., 0] >= 0).long() + 2 * (offset[..., 1] >= 0).long()
    source = source + geometry.anchor_in[tile]
    inside = ((source >= 0) & (source <= geometry.extent)).all(-1, keepdim=True)
    # half a pixel from the tile's edge, bilinear sampling would mix in the next tile of the stack
    source = torch.minimum(source.clamp(min=0.5), geometry.extent - 0.5)
    stacked = torch.stack([source[..., 0], source[..., 1] + tile * height], -1)
    whole = geometry.extent * torch.tensor([1.0, geometry.tiles], device=device)
    return torch.where(inside, stacked / whole * 2 - 1, OUTSIDE)


def warp_boxes(boxes: Tensor, labels: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Move objects with their pixels, cut them to what is visible, drop what is left of too little.

    Args:
        boxes: `(B, K, M, 4)` xyxy in tile pixels. labels: `(B, K, M)`, -1 for padding.

    Returns:
        boxes `(B, K*M, 4)` in output pixels and labels `(B, K*M)`, -1 where dropped.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).unflatten(-1, (4, 2))  # (B, K, M, 4, 2)
    offset = corners - geometry.anchor_in[:, None, None]
    moved = torch.einsum("bij,bkmcj->bkmci", geometry.linear, offset) + geometry.anchor_out[:, None, None, None]
    low, high = moved.amin(-2), moved.amax(-2)
    first, last = (limit[:, :, None] for limit in _windows(geometry))  # (B, K, 1, 2)
    shown_low, shown_high = torch.maximum(low, first), torch.minimum(high, last)
    sides = (shown_high - shown_low).clamp(min=0)
    visible = sides.prod(-1) >= MIN_VISIBLE * (high - low).prod(-1)
    keep = (labels >= 0) & visible & (sides >= MIN_SIDE).all(-1)
    shown = _mirror_boxes(shown_low.flatten(1, 2), shown_high.flatten(1, 2), geometry)
    keep = keep.flatten(1)
    return torch.where(keep[..., None], shown, 0.0), torch.where(keep, labels.flatten(1), -1)


def _windows(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Where each tile is shown in the unmirrored output: upper left and lower right, `(B, K, 2)` each."""
    count = len(geometry.linear)
    extent = geometry.extent.expand(count, geometry.tiles, 2)
    if geometry.tiles == 1:
        return torch.zeros_like(extent), extent
    meeting = geometry.anchor_out[:, None]
    starts = torch.tensor(CORNERS, device=meeting.device) == 0  # the tile begins at the meeting point
    return torch.where(starts, meeting, 0.0), torch.where(starts, extent, meeting)


def _mirror_boxes(low: Tensor, high: Tensor, geometry: Geometry) -> Tensor:
    flipped = geometry.mirror[:, None] < 0
    extent = geometry.extent
    return torch.cat([torch.where(flipped, extent - high, low), torch.where(flipped, extent - low, high)], -1)
