"""Decoding against scalar loops."""

import math

import pytest
import torch
from torch import Tensor

from nets.yolo.box_coder import BoxCoder, flatten_maps

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0))
MASKS = ((3, 4, 5), (0, 1, 2), (1, 2, 3))
SHAPES = ((2, 3), (4, 6), (8, 12))
CLASSES = 2


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def random_maps(batch: int = 2, spread: float = 2.0) -> list[Tensor]:
    return [torch.randn(batch, 3 * (5 + CLASSES), *shape) * spread for shape in SHAPES]


def scalar_decode(maps: list[Tensor], image: int, new_coords: bool, k: float) -> tuple[list, list]:
    boxes, scores = [], []
    for m, stride, mask in zip(maps, (32, 16, 8), MASKS, strict=True):
        height, width = m.shape[2:]
        for a, index in enumerate(mask):
            for row in range(height):
                for column in range(width):
                    tx, ty, tw, th, to, *classes = (
                        m[image].view(3, -1, height, width)[a, :, row, column].tolist()
                    )
                    x = (sigmoid(tx) * k - 0.5 * (k - 1) + column) * stride
                    y = (sigmoid(ty) * k - 0.5 * (k - 1) + row) * stride
                    w, h = ((2 * sigmoid(t)) ** 2 if new_coords else math.exp(t) for t in (tw, th))
                    w, h = w * ANCHORS[index][0], h * ANCHORS[index][1]
                    boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                    scores.append([sigmoid(to) * sigmoid(c) for c in classes])
    return boxes, scores


@pytest.mark.parametrize(
    ("new_coords", "given", "k"),
    [(True, None, 2.0), (False, None, 1.05), (False, 1.0, 1.0), (True, 1.3, 1.3)],
)
def test_boxes_and_scores_equal_scalar_loops(
    new_coords: bool, given: float | None, k: float
) -> None:
    maps = random_maps()
    boxes, scores = BoxCoder(ANCHORS, MASKS, new_coords, given)(maps)
    for image in range(2):
        expected_boxes, expected_scores = scalar_decode(maps, image, new_coords, k)
        torch.testing.assert_close(boxes[image], torch.tensor(expected_boxes), atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(
            scores[image], torch.tensor(expected_scores), atol=1e-6, rtol=1e-5
        )


def test_a_box_of_the_third_head_worked_out_by_hand() -> None:
    """Its second anchor, row 3, column 5: all logits 0 mean the cell's center, and the anchor."""
    maps = [torch.full((1, 3 * (5 + CLASSES), *shape), -9.0) for shape in SHAPES]
    maps[2].view(1, 3, 5 + CLASSES, *SHAPES[2])[0, 1, :5, 3, 5] = 0
    boxes, scores = BoxCoder(ANCHORS, MASKS)(maps)
    index = 3 * (2 * 3 + 4 * 6) + 8 * 12 + 3 * 12 + 5
    center_x, center_y, width, height = 5.5 * 8, 3.5 * 8, 37, 58
    expected = [center_x - width / 2, center_y - height / 2]
    expected += [center_x + width / 2, center_y + height / 2]
    assert boxes.shape == (1, 3 * (6 + 24 + 96), 4) and scores.shape[2] == CLASSES
    assert boxes[0, index].tolist() == pytest.approx(expected)
    assert scores[0].amax(1).argmax() == index


def test_two_masks_make_two_heads() -> None:
    coder = BoxCoder(ANCHORS, MASKS[:2])
    assert coder.strides == (32, 16)
    assert coder.make_grid(SHAPES[:2]).stride.unique().tolist() == [16, 32]


def test_the_grid_is_in_the_order_of_flattened_maps() -> None:
    """Maps that hold their anchor, column, row and stride are flattened to the grid."""
    maps = []
    for (height, width), stride, mask in zip(SHAPES, (32, 16, 8), MASKS, strict=True):
        m = torch.zeros(1, 3, 5 + CLASSES, height, width)
        m[0, :, 0] = torch.arange(width).float()
        m[0, :, 1] = torch.arange(height).float()[:, None]
        m[0, :, 2] = torch.tensor([ANCHORS[i][0] for i in mask])[:, None, None]
        m[0, :, 3] = torch.tensor([ANCHORS[i][1] for i in mask])[:, None, None]
        m[0, :, 4] = stride
        maps.append(m.flatten(1, 2))
    flat = flatten_maps(maps)[0]
    grid = BoxCoder(ANCHORS, MASKS).make_grid(SHAPES)
    torch.testing.assert_close(torch.cat([grid.cell, grid.anchor, grid.stride], 1), flat[:, :5])


@pytest.mark.parametrize("new_coords", [True, False])
@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_huge_logits_give_finite_boxes(new_coords: bool, logit: float) -> None:
    coder = BoxCoder(ANCHORS, MASKS, new_coords)
    boxes, scores = coder([torch.full((1, 3 * (5 + CLASSES), *shape), logit) for shape in SHAPES])
    assert boxes.isfinite().all() and scores.isfinite().all()
    assert ((boxes[..., 2:] - boxes[..., :2]).prod(-1)).isfinite().all(), (
        "areas must be finite too, NMS needs them"
    )


def test_half_precision_maps_are_decoded_in_float32() -> None:
    maps = [m.bfloat16() for m in random_maps()]
    coder = BoxCoder(ANCHORS, MASKS)
    expected = coder([m.float() for m in maps])
    for decoded, wanted in zip(coder(maps), expected, strict=True):
        assert decoded.dtype == torch.float32
        torch.testing.assert_close(
            decoded, wanted, atol=1e-4, rtol=1e-5
        )  # bfloat16 arithmetic would be off by 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_anchors_stay_exact_in_a_network_of_another_precision(dtype: torch.dtype) -> None:
    coder = BoxCoder([(13.37, 1 / 3)] * 6, ((3, 4, 5), (0, 1, 2)))
    before = coder.anchors.clone()
    coder.to(dtype)
    assert coder.anchors.dtype == torch.float32 and torch.equal(coder.anchors, before)
    assert coder.to("meta").anchors.is_meta
