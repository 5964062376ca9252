"""Geometry of the augmentation: one image, or four that meet at a point, warped into each output picture.

Forward map of tile k, in pixels: `out = mirror(linear @ (in - anchor_in[k]) + anchor_out)`; `anchor_in[k]` is the
corner of tile k that touches the meeting point `anchor_out` (for a single image: its middle). Mirroring comes last
and is about the middle of the output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.core.devices import cached_constant

MIN_SIDE = 2.0  # pixels: smaller remains of an object are dropped
MIN_VISIBLE = 0.2  # share of an object's area that must remain
OUTSIDE = 9.0  # a `grid_sample` coordinate that reads padding
CORNERS = (
    (1.0, 1.0),
    (0.0, 1.0),
    (1.0, 0.0),
    (0.0, 0.0),
)  # of tiles upper left, upper right, lower left, lower right


@dataclass(frozen=True)
class Geometry:
    """The warp of B output images of K tiles each (K is 1 or 4), on one device.

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
        return cached_constant((self.size[1], self.size[0]), self.linear.device)

    @property
    def anchor_in(self) -> Tensor:
        """`(K, 2)`, x y in tile pixels."""
        if self.tiles == 1:
            return self.extent[None] / 2
        return _corners(self.linear.device) * self.extent


def _corners(device: torch.device) -> Tensor:
    return cached_constant([side for corner in CORNERS for side in corner], device).view(-1, 2)


def warp_images(stack: Tensor, geometry: Geometry) -> Tensor:
    """Bilinear sampling. `(B, 3, K*h, w)`, K tiles one above the other -> `(B, 3, h, w)`; 0 where there is no tile."""
    grid = _sampling_grid(geometry)
    return F.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sampling_grid(geometry: Geometry) -> Tensor:
    """`grid_sample` coordinates `(B, h, w, 2)`. All that depends on a column or a row alone is computed once for it."""
    across, right = _axis(geometry, 0)  # (B, w)
    down, below = _axis(geometry, 1)  # (B, h)
    inverse = torch.linalg.inv_ex(geometry.linear).inverse[..., None, None]  # (B, 2, 2, 1, 1)
    across, down = across[:, None], down[:, :, None]
    height, width = geometry.size
    x = (
        inverse[:, 0, 0] * across
        + inverse[:, 0, 1] * down
        + _anchor(right, width, geometry)[:, None]
    )
    y = (
        inverse[:, 1, 0] * across
        + inverse[:, 1, 1] * down
        + _anchor(below, height, geometry)[:, :, None]
    )
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    # half a pixel from the tile's edge, bilinear sampling would mix in the next tile of the stack
    x, y = x.clamp_(0.5, width - 0.5), y.clamp_(0.5, height - 0.5)
    y += height * (right[:, None] + 2 * below[:, :, None])
    grid = torch.stack([x * (2 / width) - 1, y * (2 / (height * geometry.tiles)) - 1], -1)
    return grid.masked_fill_(outside[..., None], OUTSIDE)


def _axis(geometry: Geometry, axis: int) -> tuple[Tensor, Tensor]:
    """Of each output column (axis 0) or row (1): offset from `anchor_out` before mirroring, `(B, n)`, and which tile
    it belongs to, 0 for the left or upper."""
    count = geometry.size[1 - axis]
    pixel = torch.arange(count, device=geometry.linear.device) + 0.5 - count / 2
    offset = pixel * geometry.mirror[:, axis, None] + count / 2 - geometry.anchor_out[:, axis, None]
    return offset, (offset >= 0).long() if geometry.tiles == 4 else torch.zeros_like(
        offset, dtype=torch.long
    )


def _anchor(tile: Tensor, side: int, geometry: Geometry) -> Tensor:
    """The coordinate of `anchor_in` that belongs to each column or row."""
    return (
        side * (1.0 - tile)
        if geometry.tiles == 4
        else torch.full_like(tile, side, dtype=torch.float32) / 2
    )


def warp_boxes(boxes: Tensor, labels: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Move objects with their pixels, cut them to what is visible, drop what is left of too little.

    Args:
        boxes: `(B, K, M, 4)` xyxy in tile pixels. labels: `(B, K, M)`, -1 for padding.

    Returns:
        boxes `(B, K*M, 4)` in output pixels and labels `(B, K*M)`, -1 where dropped.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).unflatten(
        -1, (4, 2)
    )  # (B, K, M, 4, 2)
    offset = corners - geometry.anchor_in[:, None, None]
    moved = (
        torch.einsum("bij,bkmcj->bkmci", geometry.linear, offset)
        + geometry.anchor_out[:, None, None, None]
    )
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
    starts = _corners(meeting.device) == 0  # the tile begins at the meeting point
    return torch.where(starts, meeting, 0.0), torch.where(starts, extent, meeting)


def _mirror_boxes(low: Tensor, high: Tensor, geometry: Geometry) -> Tensor:
    flipped = geometry.mirror[:, None] < 0
    extent = geometry.extent
    return torch.cat(
        [torch.where(flipped, extent - high, low), torch.where(flipped, extent - low, high)], -1
    )
