"""Augmentation as batched tensor operations on the training device: mosaic, affine, flip, colour, mixup.

Every random number comes from a CPU generator that the caller seeds, so a batch depends on its seed alone: not on the
device, the number of workers or what was drawn before.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.data.warp import Geometry, warp_boxes, warp_images
from utils.images import PAD_VALUE
from utils.schema import Augment

GREY = PAD_VALUE / 255
MEETING = (0.3, 0.7)  # where the tiles of a mosaic meet, share of the side
# NTSC's YIQ: in it a turn of hue and a change of saturation are a rotation and a scaling of the last two axes
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Batch:
    """Pictures and padded targets.

    Attributes:
        images: float32 `(B, 3, h, w)`, RGB, 0..1, channels-last. boxes: float32 `(B, M, 4)` xyxy input pixels.
        labels: int64 `(B, M)`, -1 where there is no object.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Draws:
    """Random parameters of each picture, on the CPU: linear `(B, 2, 2)`, shift and meeting point `(B, 2)` as shares
    of the side, mirror `(B, 2)`, colour `(B, 3, 3)`."""

    linear: Tensor
    shift: Tensor
    meeting: Tensor
    mirror: Tensor
    colour: Tensor

    def rows(self, index: Tensor) -> "_Draws":
        return _Draws(
            self.linear[index], self.shift[index], self.meeting[index], self.mirror[index], self.colour[index]
        )


class Augmenter:
    """Turns canvases into training batches.

    Args:
        config: strengths and probabilities. closing: without mosaic and mixup, for the last epochs.
    """

    def __init__(self, config: Augment, closing: bool = False) -> None:
        self.config = config
        self.mosaic = 0.0 if closing else config.mosaic
        self.mixup = 0.0 if closing else config.mixup

    def partners(self, count: int, pool: int, generator: torch.Generator) -> Tensor:
        """The other three pictures of each mosaic: int64 `(count, 3)` below `pool`; rows of -1 for no mosaic."""
        chosen = torch.rand(count, 1, generator=generator) < self.mosaic
        return torch.where(chosen, torch.randint(pool, (count, 3), generator=generator), -1)

    def __call__(
        self, canvases: Tensor, boxes: Tensor, labels: Tensor, tiles: Tensor, generator: torch.Generator
    ) -> Batch:
        """Augment a batch.

        Args:
            canvases: uint8 `(P, h, w, 3)`, every picture the batch needs, on the training device.
            boxes, labels: their objects, `(P, M, 4)` xyxy pixels and `(P, M)`, padded with label -1.
            tiles: int64 `(B, 4)` on the CPU: the rows of `canvases` that make each picture; -1 after the first where
                the picture is no mosaic.
            generator: a CPU generator.
        """
        draws = _draw(self.config, len(tiles), generator)
        is_mosaic = tiles[:, 1] >= 0
        parts, order = [], []
        for columns, chosen in ((1, ~is_mosaic), (4, is_mosaic)):
            rows = chosen.nonzero().squeeze(1)
            if len(rows):
                parts.append(_compose(canvases, boxes, labels, tiles[rows, :columns], draws.rows(rows)))
                order.append(rows)
        batch = _in_order(parts, torch.cat(order))
        return _mix(batch, self.mixup, generator) if self.mixup else batch


def to_float(canvases: Tensor) -> Tensor:
    """uint8 `(B, h, w, 3)` -> float32 `(B, 3, h, w)`, 0..1, channels-last in memory."""
    return canvases.permute(0, 3, 1, 2).float().div_(255)


def _draw(config: Augment, count: int, generator: torch.Generator) -> _Draws:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    zoom = uniform(math.log(config.scale[0]), math.log(config.scale[1])).exp()
    angle = torch.deg2rad(uniform(-config.degrees, config.degrees))
    shear = torch.deg2rad(uniform(-config.shear, config.shear, 2)).tan()
    rotate = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.eye(2).repeat(count, 1, 1)
    skew[:, 0, 1], skew[:, 1, 0] = shear[:, 0], shear[:, 1]
    flips = uniform(0, 1, 2) < torch.tensor([config.flip_h, config.flip_v])
    return _Draws(
        linear=zoom[:, None, None] * rotate @ skew,
        shift=uniform(-config.shift, config.shift, 2),
        meeting=uniform(*MEETING, 2),
        mirror=1 - 2 * flips.float(),
        colour=_colour_matrix(
            uniform(-config.hue, config.hue),
            uniform(1 - config.saturation, 1 + config.saturation),
            uniform(1 - config.value, 1 + config.value),
        ),
    )


def _colour_matrix(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue turn (share of the circle), saturation and brightness factors, `(B,)` each, as one linear map of RGB."""
    to_yiq = torch.tensor(RGB_TO_YIQ)
    cos, sin = (saturation * part for part in ((2 * math.pi * hue).cos(), (2 * math.pi * hue).sin()))
    chroma = torch.zeros(len(hue), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1], chroma[:, 1, 2], chroma[:, 2, 1], chroma[:, 2, 2] = cos, -sin, sin, cos
    return value[:, None, None] * (torch.linalg.inv(to_yiq) @ chroma @ to_yiq)


def _compose(
    canvases: Tensor, boxes: Tensor, labels: Tensor, tiles: Tensor, draws: _Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of one tile each, or of four: images `(B, 3, h, w)`, boxes `(B, K*M, 4)`, labels `(B, K*M)`."""
    count, columns = tiles.shape
    device = canvases.device
    height, width = canvases.shape[1:3]
    extent = torch.tensor([width, height], dtype=torch.float32)
    anchor_out = extent * (draws.meeting if columns == 4 else 0.5 + draws.shift)
    linear, anchor_out, mirror = (t.to(device, non_blocking=True) for t in (draws.linear, anchor_out, draws.mirror))
    geometry = Geometry(linear, anchor_out, mirror, tiles=columns, size=(height, width))
    tiles = tiles.to(device, non_blocking=True)
    stack = to_float(canvases[tiles.flatten()].view(count, columns * height, width, 3)).sub_(GREY)
    images = _recolour(warp_images(stack, geometry), draws.colour.to(device, non_blocking=True))
    moved, classes = warp_boxes(boxes[tiles], labels[tiles], geometry)
    return images, moved, classes


def _recolour(images: Tensor, colour: Tensor) -> Tensor:
    """Apply `colour @ rgb` to pictures that are given relative to the padding grey, so that their padding is 0."""
    grey = (GREY * colour.sum(2, keepdim=True)).expand(-1, -1, images[0, 0].numel())
    return torch.baddbmm(grey, colour, images.flatten(2)).clamp_(0, 1).view_as(images)


def _in_order(parts: list[tuple[Tensor, Tensor, Tensor]], rows: Tensor) -> Batch:
    """Join sub-batches of different target counts and restore the order in which pictures were asked for."""
    longest = max(labels.shape[1] for _, _, labels in parts)
    images = torch.cat([part[0] for part in parts])
    boxes = torch.cat([F.pad(part[1], (0, 0, 0, longest - part[1].shape[1])) for part in parts])
    labels = torch.cat([F.pad(part[2], (0, longest - part[2].shape[1]), value=-1) for part in parts])
    order = rows.argsort().to(images.device)
    return Batch(images[order].contiguous(memory_format=torch.channels_last), boxes[order], labels[order])


def _mix(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Blend half and half with the next picture of the batch (Zhang et al., mixup, ICLR 2018), for a share of them."""
    if len(batch.labels) < 2:
        return batch
    chosen = (torch.rand(len(batch.labels), generator=generator) < share).to(batch.labels.device)
    others = batch.images.roll(1, 0)
    images = torch.where(chosen[:, None, None, None], (batch.images + others) / 2, batch.images)
    extra = torch.where(chosen[:, None], batch.labels.roll(1, 0), -1)
    return Batch(images, torch.cat([batch.boxes, batch.boxes.roll(1, 0)], 1), torch.cat([batch.labels, extra], 1))
