"""Augmentation as batched tensor operations on the device: mosaic, affine, flip, color, mixup.

All random numbers come from a CPU generator that the caller seeds, so a batch depends on its seed
only, not on the device, the number of workers or earlier draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.core.devices import cached_constant, to_device
from utils.core.images import PAD_VALUE
from utils.core.schema import AugmentConfig
from utils.data.warp import Geometry, warp_boxes, warp_images

GRAY = PAD_VALUE / 255
MEETING_POINT = (0.3, 0.7)  # where the tiles of a mosaic meet, as fractions of the side
# NTSC's YIQ, in which a hue shift rotates the last two axes and a saturation change scales them
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Batch:
    """Images and padded targets.

    Attributes:
        images: float32 `(B, 3, h, w)`, RGB, 0..1, channels-last in memory.
        boxes: float32 `(B, M, 4)`, xyxy in input pixels.
        labels: int64 `(B, M)`, -1 where there is no object.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor

    def split(self, parts: int) -> list["Batch"]:
        """Divide the batch into this many of about the same size, or one per image."""
        parts = min(parts, len(self.images))
        tensors = (self.images, self.boxes, self.labels)
        return [
            Batch(*part) for part in zip(*(t.tensor_split(parts) for t in tensors), strict=True)
        ]

    def resize(self, size: tuple[int, int]) -> "Batch":
        """Scale images and boxes to (height, width) in pixels."""
        height, width = self.images.shape[2:]
        if size == (height, width):
            return self
        images = F.interpolate(self.images, size, mode="bilinear", align_corners=False)
        factors = (size[1] / width, size[0] / height) * 2
        return Batch(images, self.boxes * self.boxes.new_tensor(factors), self.labels)


@dataclass(frozen=True)
class ImagePool:
    """The images that batches are composed of, on the training device.

    Attributes:
        canvases: uint8 `(P, h, w, 3)`.
        boxes: float32 `(P, M, 4)`, xyxy in pixels.
        labels: int64 `(P, M)`, -1 after the last object of an image.
        counts: int64 `(P,)`, objects per image, on the CPU.
        content: float32 `(P, 4)`, where the image is in its canvas, xyxy in pixels; the rest is
            padding.
    """

    canvases: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor
    content: Tensor


@dataclass(frozen=True)
class _RandomParameters:
    """Random parameters of each image, on the CPU.

    Attributes:
        linear: `(B, 2, 2)`, rotation, scale and shear.
        shift: `(B, 2)`, x y as fractions of the image's sides.
        meeting_point: `(B, 2)`, x y as fractions of the output's sides.
        mirror: `(B, 2)`, 1 or -1 for x and y.
        color: `(B, 3, 3)`, linear map of RGB.
    """

    linear: Tensor
    shift: Tensor
    meeting_point: Tensor
    mirror: Tensor
    color: Tensor

    def select(self, rows: Tensor) -> "_RandomParameters":
        return _RandomParameters(*(getattr(self, field.name)[rows] for field in fields(self)))


class Augmenter:
    """Turns canvases into training batches.

    Args:
        config: strengths and probabilities.
        closing: leave out mosaic and mixup, as in the last epochs.
    """

    def __init__(self, config: AugmentConfig, closing: bool = False) -> None:
        self.config = config
        self.mosaic = 0.0 if closing else config.mosaic
        self.mixup = 0.0 if closing else config.mixup

    def mosaic_partners(self, count: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the other three images of each mosaic.

        Args:
            count: number of images in the batch.
            images: number of images in the dataset.
            generator: a CPU generator.

        Returns:
            int64 `(count, 3)`, indices below `images`; a row of -1 means no mosaic.
        """
        chosen = torch.rand(count, 1, generator=generator) < self.mosaic
        return torch.where(chosen, torch.randint(images, (count, 3), generator=generator), -1)

    def rows_needed(self, rows: Sequence[int], batch_size: int) -> Tensor:
        """The rows of a batch that `rows` are made of, int64; mixup needs the preceding ones."""
        own = torch.tensor(rows)
        if not self.mixup:
            return own
        return torch.cat([own, own - 1]).remainder(batch_size).unique()

    def __call__(
        self,
        pool: ImagePool,
        tiles: Tensor,
        generator: torch.Generator,
        rows: Sequence[int] | None = None,
    ) -> Batch:
        """Augment a batch.

        Args:
            pool: every image that the batch needs.
            tiles: int64 `(B, 4)` on the CPU, indices into `pool` of the images that make up each
                row of the batch; -1 after the first one if it is no mosaic.
            generator: a CPU generator.
            rows: rows of the batch to make, default: all; their content does not depend on this.
        """
        batch_size = len(tiles)
        rows = range(batch_size) if rows is None else rows
        parameters = _draw_parameters(self.config, batch_size, generator)
        needed = self.rows_needed(rows, batch_size)
        batch = _compose_batch(pool, tiles[needed], parameters.select(needed))
        if not self.mixup or batch_size < 2:
            return batch
        chosen = torch.rand(batch_size, generator=generator) < self.mixup
        own = torch.tensor(rows)
        first = torch.searchsorted(needed, own)
        second = torch.searchsorted(needed, (own - 1).remainder(batch_size))
        return _mix(batch, chosen[own], first, second)


def to_float(canvases: Tensor) -> Tensor:
    """uint8 `(B, h, w, 3)` -> float32 `(B, 3, h, w)`, 0..1, channels-last in memory."""
    return canvases.permute(0, 3, 1, 2).float().div_(255)


def _draw_parameters(
    config: AugmentConfig, count: int, generator: torch.Generator
) -> _RandomParameters:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    # the order of the draws is part of what a seed means
    scale = uniform(math.log(config.scale[0]), math.log(config.scale[1])).exp()
    angle = torch.deg2rad(uniform(-config.degrees, config.degrees))
    shear = torch.deg2rad(uniform(-config.shear, config.shear, 2)).tan()
    flips = uniform(0, 1, 2) < torch.tensor([config.fliplr, config.flipud])
    shift = uniform(-config.translate, config.translate, 2)
    meeting_point = uniform(*MEETING_POINT, 2)
    hue = uniform(-config.hsv_h, config.hsv_h)
    saturation = uniform(1 - config.hsv_s, 1 + config.hsv_s)
    value = uniform(1 - config.hsv_v, 1 + config.hsv_v)
    return _RandomParameters(
        linear=_linear_map(scale, angle, shear),
        shift=shift,
        meeting_point=meeting_point,
        mirror=1 - 2 * flips.float(),
        color=_color_matrix(hue, saturation, value),
    )


def _linear_map(scale: Tensor, angle: Tensor, shear: Tensor) -> Tensor:
    """Scale `(B,)`, angle `(B,)` in radians and tangents of the shear `(B, 2)` -> `(B, 2, 2)`."""
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    skew = torch.eye(2).repeat(len(scale), 1, 1)
    skew[:, 0, 1] = shear[:, 0]
    skew[:, 1, 0] = shear[:, 1]
    return scale[:, None, None] * rotation @ skew


def _color_matrix(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Changes of hue, saturation and brightness as one linear map of RGB.

    Args:
        hue: shift `(B,)`, as a fraction of the color circle.
        saturation: factor `(B,)`.
        value: factor `(B,)`.

    Returns:
        float32 `(B, 3, 3)`.
    """
    to_yiq = torch.tensor(RGB_TO_YIQ)
    cos = saturation * (2 * math.pi * hue).cos()
    sin = saturation * (2 * math.pi * hue).sin()
    chroma = torch.zeros(len(hue), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = cos
    chroma[:, 1, 2] = -sin
    chroma[:, 2, 1] = sin
    chroma[:, 2, 2] = cos
    return value[:, None, None] * (torch.linalg.inv(to_yiq) @ chroma @ to_yiq)


def _compose_batch(pool: ImagePool, tiles: Tensor, parameters: _RandomParameters) -> Batch:
    """Compose plain images and mosaics separately, then restore the order of `tiles`."""
    is_mosaic = tiles[:, 1] >= 0
    parts: list[Batch] = []
    order: list[Tensor] = []
    for tile_count, chosen in ((1, ~is_mosaic), (4, is_mosaic)):
        rows = chosen.nonzero().squeeze(1)
        if len(rows):
            parts.append(_compose(pool, tiles[rows, :tile_count], parameters.select(rows)))
            order.append(rows)
    objects = torch.where(tiles >= 0, pool.counts[tiles], 0).sum(1)
    return _join(parts, torch.cat(order), max_objects=max(1, int(objects.max())))


def _compose(pool: ImagePool, tiles: Tensor, parameters: _RandomParameters) -> Batch:
    """Compose images of K tiles each, 1 or 4; their boxes are `(B, K*M, 4)`."""
    count, tile_count = tiles.shape
    device = pool.canvases.device
    height, width = pool.canvases.shape[1:3]
    tiles = to_device(tiles, device)
    extent = cached_constant((width, height), device)
    content = pool.content[tiles]
    if tile_count == 4:
        center = to_device(parameters.meeting_point, device)
    else:  # moved by a fraction of the image, not of the canvas
        sides = content[:, 0, 2:] - content[:, 0, :2]
        center = 0.5 + to_device(parameters.shift, device) * (sides / extent)
    geometry = Geometry(
        linear=to_device(parameters.linear, device),
        anchor_out=extent * center,
        mirror=to_device(parameters.mirror, device),
        content=content,
        size=(height, width),
    )
    stacks = pool.canvases[tiles.flatten()].view(count, tile_count * height, width, 3)
    images = warp_images(to_float(stacks).sub_(GRAY), geometry)
    images = _recolor(images, to_device(parameters.color, device))
    boxes, labels = warp_boxes(pool.boxes[tiles], pool.labels[tiles], geometry)
    return Batch(images, boxes, labels)


def _recolor(images: Tensor, color: Tensor) -> Tensor:
    """Apply `color @ rgb` to images given relative to the padding gray: their padding is 0."""
    gray = (GRAY * color.sum(2, keepdim=True)).expand(-1, -1, images[0, 0].numel())
    return torch.baddbmm(gray, color, images.flatten(2)).clamp_(0, 1).view_as(images)


def _join(parts: list[Batch], rows: Tensor, max_objects: int) -> Batch:
    """Join partial batches.

    Args:
        parts: batches with different numbers of targets per image.
        rows: int64 `(B,)`, where each image belongs in the joined batch.
        max_objects: largest number of objects in an image; padding beyond it is dropped.
    """
    longest = max(max_objects, *(part.labels.shape[1] for part in parts))
    all_boxes, all_labels = [], []
    for part in parts:
        padding = longest - part.labels.shape[1]
        all_boxes.append(F.pad(part.boxes, (0, 0, 0, padding)))
        all_labels.append(F.pad(part.labels, (0, padding), value=-1))
    images = torch.cat([part.images for part in parts])
    order = to_device(rows.argsort(), images.device)
    boxes, labels = torch.cat(all_boxes)[order], torch.cat(all_labels)[order]
    is_padding = (labels < 0).to(torch.uint8)
    objects_first = is_padding.sort(dim=1, stable=True).indices[:, :max_objects]
    return Batch(
        images=images[order].contiguous(memory_format=torch.channels_last),
        boxes=boxes.gather(1, objects_first[..., None].expand(-1, -1, 4)),
        labels=labels.gather(1, objects_first),
    )


def _mix(batch: Batch, chosen: Tensor, first: Tensor, second: Tensor) -> Batch:
    """Blend images half and half (Zhang et al., mixup, ICLR 2018).

    Args:
        batch: the images.
        chosen: bool `(n,)`, which images are blended.
        first: int64 `(n,)`, the rows of `batch` to return.
        second: int64 `(n,)`, the rows that are blended into them.
    """
    device = batch.images.device
    chosen = to_device(chosen, device)
    first = to_device(first, device)
    second = to_device(second, device)
    images = batch.images[first]
    blended = (images + batch.images[second]) / 2
    images = torch.where(chosen[:, None, None, None], blended, images)
    extra_labels = torch.where(chosen[:, None], batch.labels[second], -1)
    return Batch(
        images=images.contiguous(memory_format=torch.channels_last),
        boxes=torch.cat([batch.boxes[first], batch.boxes[second]], 1),
        labels=torch.cat([batch.labels[first], extra_labels], 1),
    )
