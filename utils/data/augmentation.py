"""Augmentation as batched tensor operations on the training device: mosaic, affine, flip, color, mixup.

Every random number comes from a CPU generator that the caller seeds, so a batch depends on its seed alone: not on the
device, the number of workers or what was drawn before.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.core.devices import cached_constant, to_device
from utils.core.images import PAD_VALUE
from utils.core.schema import AugmentConfig
from utils.data.warp import Geometry, warp_boxes, warp_images

GRAY = PAD_VALUE / 255
MEETING = (0.3, 0.7)  # where the tiles of a mosaic meet, share of the side
# NTSC's YIQ: in it a turn of hue and a change of saturation are a rotation and a scaling of the last two axes
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Batch:
    """Images and padded targets.

    Attributes:
        images: float32 `(B, 3, h, w)`, RGB, 0..1, channels-last. boxes: float32 `(B, M, 4)` xyxy input pixels.
        labels: int64 `(B, M)`, -1 where there is no object.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Pool:
    """Images that batches are made of, on the training device.

    Attributes:
        canvases: uint8 `(P, h, w, 3)`. boxes: float32 `(P, M, 4)` xyxy pixels. labels: int64 `(P, M)`, -1 after the
            last object of a picture. counts: int64 `(P,)`, objects of each, on the CPU.
    """

    canvases: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor


@dataclass(frozen=True)
class _Draws:
    """Random parameters of each image, on the CPU: linear `(B, 2, 2)`, shift and meeting point `(B, 2)` as shares
    of the side, mirror `(B, 2)`, color `(B, 3, 3)`."""

    linear: Tensor
    shift: Tensor
    meeting: Tensor
    mirror: Tensor
    color: Tensor

    def rows(self, index: Tensor) -> "_Draws":
        return _Draws(
            self.linear[index],
            self.shift[index],
            self.meeting[index],
            self.mirror[index],
            self.color[index],
        )


class Augmenter:
    """Turns canvases into training batches.

    Args:
        config: strengths and probabilities. closing: without mosaic and mixup, for the last epochs.
    """

    def __init__(self, config: AugmentConfig, closing: bool = False) -> None:
        self.config = config
        self.mosaic = 0.0 if closing else config.mosaic
        self.mixup = 0.0 if closing else config.mixup

    def partners(self, count: int, pool: int, generator: torch.Generator) -> Tensor:
        """The other three images of each mosaic: int64 `(count, 3)` below `pool`; rows of -1 for no mosaic."""
        chosen = torch.rand(count, 1, generator=generator) < self.mosaic
        return torch.where(chosen, torch.randint(pool, (count, 3), generator=generator), -1)

    def needed(self, part: range, count: int) -> Tensor:
        """The rows, int64, that images `part` of a batch of `count` are made of: with mixup, also the one before."""
        rows = torch.tensor(part)
        return torch.cat([rows, rows - 1]).remainder(count).unique() if self.mixup else rows

    def __call__(
        self, pool: Pool, tiles: Tensor, generator: torch.Generator, part: range | None = None
    ) -> Batch:
        """Augment a batch.

        Args:
            pool: every image the batch needs.
            tiles: int64 `(B, 4)` on the CPU: the rows of `pool` that make each image; -1 after the first where
                the image is no mosaic.
            generator: a CPU generator.
            part: the images that are wanted, none: all. What they look like does not depend on it.
        """
        part = range(len(tiles)) if part is None else part
        draws = _draw(self.config, len(tiles), generator)
        rows = self.needed(part, len(tiles))
        batch = self._compose(pool, tiles[rows], draws.rows(rows))
        if not self.mixup or len(tiles) < 2:
            return batch
        chosen = torch.rand(len(tiles), generator=generator) < self.mixup
        own = torch.tensor(part)
        places = [
            torch.searchsorted(rows, wanted.remainder(len(tiles))) for wanted in (own, own - 1)
        ]
        return _mix(batch, chosen[own], *places)

    def _compose(self, pool: Pool, tiles: Tensor, draws: "_Draws") -> Batch:
        """Images of one tile and of four, in the order of `tiles`."""
        is_mosaic = tiles[:, 1] >= 0
        parts, order = [], []
        for columns, chosen in ((1, ~is_mosaic), (4, is_mosaic)):
            rows = chosen.nonzero().squeeze(1)
            if len(rows):
                parts.append(_compose(pool, tiles[rows, :columns], draws.rows(rows)))
                order.append(rows)
        most = max(1, int(torch.where(tiles >= 0, pool.counts[tiles], 0).sum(1).max()))
        return _in_order(parts, torch.cat(order), most)


def to_float(canvases: Tensor) -> Tensor:
    """uint8 `(B, h, w, 3)` -> float32 `(B, 3, h, w)`, 0..1, channels-last in memory."""
    return canvases.permute(0, 3, 1, 2).float().div_(255)


def _draw(config: AugmentConfig, count: int, generator: torch.Generator) -> _Draws:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    zoom = uniform(math.log(config.scale[0]), math.log(config.scale[1])).exp()
    angle = torch.deg2rad(uniform(-config.degrees, config.degrees))
    shear = torch.deg2rad(uniform(-config.shear, config.shear, 2)).tan()
    rotate = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.eye(2).repeat(count, 1, 1)
    skew[:, 0, 1], skew[:, 1, 0] = shear[:, 0], shear[:, 1]
    flips = uniform(0, 1, 2) < torch.tensor([config.fliplr, config.flipud])
    return _Draws(
        linear=zoom[:, None, None] * rotate @ skew,
        shift=uniform(-config.translate, config.translate, 2),
        meeting=uniform(*MEETING, 2),
        mirror=1 - 2 * flips.float(),
        color=_color_matrix(
            uniform(-config.hsv_h, config.hsv_h),
            uniform(1 - config.hsv_s, 1 + config.hsv_s),
            uniform(1 - config.hsv_v, 1 + config.hsv_v),
        ),
    )


def _color_matrix(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue turn (share of the circle), saturation and brightness factors, `(B,)` each, as one linear map of RGB."""
    to_yiq = torch.tensor(RGB_TO_YIQ)
    cos, sin = (
        saturation * part for part in ((2 * math.pi * hue).cos(), (2 * math.pi * hue).sin())
    )
    chroma = torch.zeros(len(hue), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1], chroma[:, 1, 2], chroma[:, 2, 1], chroma[:, 2, 2] = cos, -sin, sin, cos
    return value[:, None, None] * (torch.linalg.inv(to_yiq) @ chroma @ to_yiq)


def _compose(pool: Pool, tiles: Tensor, draws: _Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Images of one tile each, or of four: images `(B, 3, h, w)`, boxes `(B, K*M, 4)`, labels `(B, K*M)`."""
    count, columns = tiles.shape
    device = pool.canvases.device
    height, width = pool.canvases.shape[1:3]
    extent = cached_constant((width, height), draws.shift.device)
    anchor_out = extent * (draws.meeting if columns == 4 else 0.5 + draws.shift)
    linear, anchor_out, mirror = (
        to_device(t, device) for t in (draws.linear, anchor_out, draws.mirror)
    )
    geometry = Geometry(linear, anchor_out, mirror, tiles=columns, size=(height, width))
    tiles = to_device(tiles, device)
    stack = to_float(pool.canvases[tiles.flatten()].view(count, columns * height, width, 3)).sub_(
        GRAY
    )
    images = _recolor(warp_images(stack, geometry), to_device(draws.color, device))
    moved, classes = warp_boxes(pool.boxes[tiles], pool.labels[tiles], geometry)
    return images, moved, classes


def _recolor(images: Tensor, color: Tensor) -> Tensor:
    """Apply `color @ rgb` to images that are given relative to the padding gray, so that their padding is 0."""
    gray = (GRAY * color.sum(2, keepdim=True)).expand(-1, -1, images[0, 0].numel())
    return torch.baddbmm(gray, color, images.flatten(2)).clamp_(0, 1).view_as(images)


def _in_order(parts: list[tuple[Tensor, Tensor, Tensor]], rows: Tensor, most: int) -> Batch:
    """Join sub-batches of different target counts, restore the order in which images were asked for, and keep room
    for `most` objects an image: no image has more."""
    longest = max(most, *(labels.shape[1] for _, _, labels in parts))
    images = torch.cat([part[0] for part in parts])
    boxes = torch.cat([F.pad(part[1], (0, 0, 0, longest - part[1].shape[1])) for part in parts])
    labels = torch.cat(
        [F.pad(part[2], (0, longest - part[2].shape[1]), value=-1) for part in parts]
    )
    order = to_device(rows.argsort(), images.device)
    boxes, labels = boxes[order], labels[order]
    first = (
        (labels < 0).to(torch.uint8).sort(dim=1, stable=True).indices[:, :most]
    )  # objects before padding
    boxes, labels = boxes.gather(1, first[..., None].expand(-1, -1, 4)), labels.gather(1, first)
    return Batch(images[order].contiguous(memory_format=torch.channels_last), boxes, labels)


def _mix(batch: Batch, chosen: Tensor, own: Tensor, others: Tensor) -> Batch:
    """Blend the images `own` half and half with `others` (Zhang et al., mixup, ICLR 2018), where they are chosen."""
    device = batch.images.device
    chosen, own, others = (
        to_device(chosen, device),
        to_device(own, device),
        to_device(others, device),
    )
    images, other_images = batch.images[own], batch.images[others]
    images = torch.where(chosen[:, None, None, None], (images + other_images) / 2, images)
    extra = torch.where(chosen[:, None], batch.labels[others], -1)
    return Batch(
        images.contiguous(memory_format=torch.channels_last),
        torch.cat([batch.boxes[own], batch.boxes[others]], 1),
        torch.cat([batch.labels[own], extra], 1),
    )
