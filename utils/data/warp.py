"""Geometry of the augmentation: warps one image, or four that meet at a point, into each output.

Forward map of tile k, in pixels: `out = mirror(linear @ (in - anchor_in[k]) + anchor_out)`;
`anchor_in[k]` is the corner of the image in tile k that touches the meeting point `anchor_out` (for
a single image: its center). It is a corner of the image itself, not of the gray bars that
letterboxing put around it, which would otherwise meet in the middle. Mirroring comes last and is
about the center of the output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.core.devices import cached_constant

MIN_SIDE = 2.0  # pixels; smaller remains of an object are dropped
MIN_VISIBLE = 0.2  # fraction of an object's area that must remain
OUTSIDE = 9.0  # a `grid_sample` coordinate that reads padding
# the corner of each image at the meeting point, x y as fractions of its sides: upper left tile,
# upper right, lower left, lower right
TILE_CORNERS = (1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Geometry:
    """The warp of B output images of K tiles each, on one device.

    Attributes:
        linear: `(B, 2, 2)`.
        anchor_out: `(B, 2)`, x y in pixels.
        mirror: `(B, 2)`, 1 or -1 for x and y.
        content: `(B, K, 4)`, the image in each tile without its padding, xyxy in tile pixels; K is
            1 or 4.
        size: (height, width) of the tiles and the output, in pixels.
    """

    linear: Tensor
    anchor_out: Tensor
    mirror: Tensor
    content: Tensor
    size: tuple[int, int]

    @property
    def tile_count(self) -> int:
        """K, 1 or 4."""
        return self.content.shape[1]

    @property
    def extent(self) -> Tensor:
        """(width, height) as a tensor `(2,)`."""
        return cached_constant((self.size[1], self.size[0]), self.linear.device)

    @property
    def anchor_in(self) -> Tensor:
        """`(B, K, 2)`, x y in tile pixels."""
        low, high = self.content[..., :2], self.content[..., 2:]
        if self.tile_count == 1:
            return (low + high) / 2
        return torch.where(_tile_corners(self.linear.device) > 0, high, low)


def _tile_corners(device: torch.device) -> Tensor:
    return cached_constant(TILE_CORNERS, device).view(-1, 2)


def warp_images(stacks: Tensor, geometry: Geometry) -> Tensor:
    """Sample the tiles bilinearly.

    Args:
        stacks: `(B, 3, K*h, w)`, the K tiles of each image one above the other.
        geometry: the warp.

    Returns:
        `(B, 3, h, w)`, 0 where there is no tile.
    """
    grid = _sampling_grid(geometry)
    return F.grid_sample(stacks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sampling_grid(geometry: Geometry) -> Tensor:
    """`grid_sample` coordinates `(B, h, w, 2)`.

    Terms that depend only on the column or the row are computed once per column or row.
    """
    height, width = geometry.size
    dx, is_right = _offsets(geometry, 0)  # (B, w)
    dy, is_lower = _offsets(geometry, 1)  # (B, h)
    inverse = torch.linalg.inv_ex(geometry.linear).inverse  # (B, 2, 2)
    by_row = (inverse[:, :, 1, None] * dy[:, None])[..., None]  # (B, x y, h, 1)
    by_column = inverse[:, None, :, :1] * dx[:, None, None] + _anchors(geometry, is_right)
    by_column = by_column[:, :, :, None]  # (B, upper lower, x y, 1, w)
    if geometry.tile_count == 1:
        x, y = (by_column[:, 0] + by_row).unbind(1)
    else:
        in_lower_tiles = is_lower.bool()[:, None, :, None]
        x, y = torch.where(in_lower_tiles, by_column[:, 1], by_column[:, 0]).add_(by_row).unbind(1)
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    # half a pixel from the tile's edge, bilinear sampling would mix in the next tile of the stack
    x, y = x.clamp_(0.5, width - 0.5), y.clamp_(0.5, height - 0.5)
    y += height * (is_right[:, None] + 2 * is_lower[:, :, None])
    grid_x = x * (2 / width) - 1
    grid_y = y * (2 / (height * geometry.tile_count)) - 1
    return torch.stack([grid_x, grid_y], -1).masked_fill_(outside[..., None], OUTSIDE)


def _anchors(geometry: Geometry, is_right: Tensor) -> Tensor:
    """The `anchor_in` of each column, in the upper tiles and in the lower ones.

    Args:
        geometry: the warp.
        is_right: int64 `(B, w)`, 1 in columns of the right tiles.

    Returns:
        `(B, upper lower, x y, w)`; `(B, 1, x y, 1)` for a single image.
    """
    anchors = geometry.anchor_in
    if geometry.tile_count == 1:
        return anchors[..., None]
    by_side = anchors.unflatten(1, (2, 2)).transpose(2, 3)  # (B, upper lower, x y, left right)
    return by_side.gather(3, is_right[:, None, None].expand(-1, 2, 2, -1))


def _offsets(geometry: Geometry, axis: int) -> tuple[Tensor, Tensor]:
    """Offset from `anchor_out` of each output column (axis 0) or row (1), before mirroring, and
    which tile it belongs to: 0 for the left or upper, 1 for the right or lower; `(B, n)` each.
    """
    count = geometry.size[1 - axis]
    pixel = torch.arange(count, device=geometry.linear.device) + 0.5 - count / 2
    offset = pixel * geometry.mirror[:, axis, None] + count / 2 - geometry.anchor_out[:, axis, None]
    if geometry.tile_count == 4:
        return offset, (offset >= 0).long()
    return offset, torch.zeros_like(offset, dtype=torch.long)


def warp_boxes(boxes: Tensor, labels: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Move objects with their pixels, clip them to what is visible, and drop small remains.

    Args:
        boxes: `(B, K, M, 4)`, xyxy in tile pixels.
        labels: `(B, K, M)`, -1 for padding.
        geometry: the warp.

    Returns:
        boxes `(B, K*M, 4)` in output pixels, and labels `(B, K*M)`, -1 where dropped.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).unflatten(-1, (4, 2))
    offset = corners - geometry.anchor_in[:, :, None, None]  # (B, K, M, 4 corners, 2)
    anchor_out = geometry.anchor_out[:, None, None, None]
    moved = torch.einsum("bij,bkmcj->bkmci", geometry.linear, offset) + anchor_out
    low, high = moved.amin(-2), moved.amax(-2)
    window_low, window_high = _tile_windows(geometry)
    visible_low = torch.maximum(low, window_low[:, :, None])
    visible_high = torch.minimum(high, window_high[:, :, None])
    sides = (visible_high - visible_low).clamp(min=0)
    is_visible = sides.prod(-1) >= MIN_VISIBLE * (high - low).prod(-1)
    keep = ((labels >= 0) & is_visible & (sides >= MIN_SIDE).all(-1)).flatten(1)
    visible = _mirror_boxes(visible_low.flatten(1, 2), visible_high.flatten(1, 2), geometry)
    return torch.where(keep[..., None], visible, 0.0), torch.where(keep, labels.flatten(1), -1)


def _tile_windows(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Upper left and lower right corner of each tile in the unmirrored output, `(B, K, 2)` each."""
    extent = geometry.extent.expand(len(geometry.linear), geometry.tile_count, 2)
    if geometry.tile_count == 1:
        return torch.zeros_like(extent), extent
    meeting_point = geometry.anchor_out[:, None]
    starts = _tile_corners(meeting_point.device) == 0  # the tile begins at the meeting point
    low = torch.where(starts, meeting_point, 0.0)
    high = torch.where(starts, extent, meeting_point)
    return low, high


def _mirror_boxes(low: Tensor, high: Tensor, geometry: Geometry) -> Tensor:
    """Corners `(B, n, 2)` each -> mirrored boxes `(B, n, 4)`."""
    is_mirrored = geometry.mirror[:, None] < 0
    x1y1 = torch.where(is_mirrored, geometry.extent - high, low)
    x2y2 = torch.where(is_mirrored, geometry.extent - low, high)
    return torch.cat([x1y1, x2y2], -1)
