"""Mosaics and shifts of images that are not square: padding is no part of the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmentation_parts import NOTHING, seeded, singles
from torch import Tensor

from utils.core.images import Letterbox
from utils.core.schema import AugmentConfig
from utils.data.augmentation import GRAY, Augmenter, ImagePool


def letterboxed(size: tuple[int, int]) -> ImagePool:
    """Eight magenta images of (width, height) in square canvases, an object in each quarter."""
    side, count = 96, 8
    width, height = size
    letterbox = Letterbox((height, width), (side, side))
    canvas = torch.from_numpy(letterbox.apply(np.full((height, width, 3), (255, 0, 255), np.uint8)))
    corners = np.array([[x, y] for x in (0.1, 0.6) for y in (0.1, 0.6)]) * size
    boxes = letterbox.boxes_to_input(np.hstack([corners, corners + np.array(size) / 4]))
    return ImagePool(
        canvas.expand(count, side, side, 3),
        torch.from_numpy(boxes).expand(count, 4, 4),
        torch.zeros(count, 4, dtype=torch.int64),
        torch.full((count,), 4),
        torch.tensor([letterbox.content], dtype=torch.float32).expand(count, 4),
    )


def shares(pool: ImagePool, tiles: Tensor, **settings: object) -> tuple[float, Tensor]:
    """The share of gray pixels in many batches, and the number of objects in each image."""
    augmenter = Augmenter(AugmentConfig(**{**NOTHING, **settings}))
    batches = [augmenter(pool, tiles, seeded(seed)) for seed in range(20)]
    gray = [((batch.images - GRAY).abs().amax(1) < 0.01).float().mean() for batch in batches]
    counts = torch.cat([(batch.labels >= 0).sum(1) for batch in batches])
    return float(torch.stack(gray).mean()), counts


@pytest.mark.parametrize(
    ("size", "gray_limit", "least_objects"),
    # with tiles that met at the corners of the canvas: 0.43, 0.24, 0.66 gray and about 5 objects
    [((160, 90), 0.06, 7), ((90, 120), 0.01, 6), ((40, 120), 0.35, 8), ((120, 40), 0.35, 8)],
)
def test_a_mosaic_joins_images_not_their_padding(
    size: tuple[int, int], gray_limit: float, least_objects: float
):
    pool, tiles = letterboxed(size), torch.arange(8)[:, None].expand(8, 4)
    for mirror in ({}, {"fliplr": 1.0, "flipud": 1.0}):
        gray, counts = shares(pool, tiles, mosaic=1.0, **mirror)
        assert gray < gray_limit and counts.float().mean() > least_objects and counts.min() > 0
    gray, counts = shares(pool, tiles, mosaic=1.0, scale=(0.5, 1.5), degrees=10)
    assert gray < gray_limit + 0.15 and counts.min() > 0


def test_boxes_of_a_mosaic_lie_where_the_objects_do():
    """Objects of a wide image, drawn in green, under zoom and flips."""
    pool = letterboxed((160, 90))
    canvases = pool.canvases.clone()
    for x1, y1, x2, y2 in pool.boxes[0].round().int().tolist():
        canvases[:, y1:y2, x1:x2] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    settings = {"mosaic": 1.0, "fliplr": 0.5, "flipud": 0.5, "scale": (0.7, 1.3)}
    augmenter = Augmenter(AugmentConfig(**{**NOTHING, **settings}))
    batch = augmenter(
        replace(pool, canvases=canvases), torch.arange(8)[:, None].expand(8, 4), seeded(3)
    )
    is_green = batch.images[:, 1] > 0.75
    covered = torch.zeros_like(is_green)
    for index, (boxes, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
        for x1, y1, x2, y2 in boxes[labels >= 0].round().int().tolist():
            assert is_green[index, y1:y2, x1:x2].float().mean() > 0.75
            covered[index, y1:y2, x1:x2] = True
    assert (is_green & covered).sum() > 0.9 * is_green.sum()


def test_an_image_moves_by_a_share_of_its_own_sides():
    pool = letterboxed((160, 80))
    batch = Augmenter(AugmentConfig(**{**NOTHING, "translate": 0.2}))(pool, singles(8), seeded(0))
    shown = (batch.images - GRAY).abs().amax(1) > 0.1
    rows = shown.any(2).sum(1)
    assert rows.min() >= 47  # all of the image's 48 rows: it moved by 0.2 of 48, not of 96
