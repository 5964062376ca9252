"""Target assignment against loops over images, objects, anchors and cells."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from nets.losses.assigner import Candidates, find_candidates, keep_aligned
from nets.yolo.box_coder import BoxCoder
from utils.core.schema import LossConfig

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0))
MASKS = ((3, 4, 5), (0, 1, 2))
MASKS_3 = ((4, 5, 2), (3, 2, 1), (0, 1, 2))  # of three heads
SHAPES = [(3, 4), (6, 8), (12, 16)]  # of an image 96 high and 128 wide
HEIGHT, WIDTH = 96, 128
BOXES = torch.tensor(
    [
        [
            [10, 10, 34, 40],
            [0, 0, 128, 96],
            [100, 50, 101, 51],
            [127, 0, 128, 96],
            [40, 40, 60, 60],
            [0, 0, 0, 0],
        ],
        [
            [128, 96, 128, 96],
            [16, 16, 48, 48],
            [0, 90, 128, 96],
            [63, 31, 65, 33],
            [0, 0, 0, 0],
            [5, 5, 9, 9],
        ],
    ],
    dtype=torch.float32,
)
IS_OBJECT = torch.tensor(
    [[True, True, True, True, True, False], [True, True, True, True, False, False]]
)


def coder(**options: float) -> BoxCoder:
    return BoxCoder(ANCHORS, MASKS, **options)


def loop_candidates(
    box: list[float], rule: LossConfig, neighbors: bool, masks=MASKS
) -> Counter[int]:
    """Flat indices of the predictions that may learn one object."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
    overlaps = {}
    for index in {index for mask in masks for index in mask}:
        aw, ah = ANCHORS[index]
        shared = min(w, aw) * min(h, ah)
        overlaps[index] = shared / (w * h + aw * ah - shared)
    best = max(overlaps, key=lambda index: overlaps[index])
    counts: Counter[int] = Counter()
    start = 0
    for (height, width), stride, mask in zip(SHAPES, (32, 16, 8), masks, strict=False):
        column, row = min(int(x / stride), width - 1), min(int(y / stride), height - 1)
        cells = [(column, row)]
        if neighbors:
            cells.append((column + (1 if x / stride - column >= 0.5 else -1), row))
            cells.append((column, row + (1 if y / stride - row >= 0.5 else -1)))
        for position, index in enumerate(mask):
            aw, ah = ANCHORS[index]
            ratio = max(w / aw, aw / w, h / ah, ah / h)
            fits = {
                "best": False,
                "iou": overlaps[index] > rule.anchor_iou,
                "ratio": ratio < rule.anchor_ratio,
                "aligned": ratio < rule.anchor_ratio,
            }[rule.assign]
            if index != best and not fits:
                continue
            for cx, cy in cells:
                if 0 <= cx < width and 0 <= cy < height:
                    counts[start + position * height * width + cy * width + cx] += 1
        start += len(mask) * height * width
    return counts


@pytest.mark.parametrize("assign", ["best", "iou", "ratio", "aligned"])
@pytest.mark.parametrize("new_coords", [True, False])
@pytest.mark.parametrize("masks", [MASKS, MASKS_3])
def test_candidates_equal_loops(assign: str, new_coords: bool, masks: tuple) -> None:
    rule = LossConfig(assign=assign)
    box_coder = BoxCoder(ANCHORS, masks, new_coords)
    candidates = find_candidates(BOXES, IS_OBJECT, SHAPES[: len(masks)], box_coder, rule)
    neighbors = assign in ("ratio", "aligned") and new_coords
    for image in range(2):
        for obj in range(6):
            index = candidates.index[image, obj][candidates.valid[image, obj]].tolist()
            expected: Counter[int] = Counter()
            if IS_OBJECT[image, obj]:
                expected = loop_candidates(BOXES[image, obj].tolist(), rule, neighbors, masks)
            assert Counter(index) == expected, (image, obj)


@pytest.mark.parametrize("option", [{"anchor_ratio": 1.5}, {"assign": "iou", "anchor_iou": 0.6}])
def test_thresholds_are_the_configurations(option: dict) -> None:
    rule = LossConfig(**option)
    candidates = find_candidates(BOXES, IS_OBJECT, SHAPES[:2], coder(), rule)
    expected = loop_candidates(BOXES[0, 0].tolist(), rule, rule.assign == "ratio")
    assert Counter(candidates.index[0, 0][candidates.valid[0, 0]].tolist()) == expected


@pytest.mark.parametrize("assign", ["best", "iou", "ratio", "aligned"])
def test_no_object_is_lost_to_anchors_that_do_not_fit(assign: str) -> None:
    """Darknet's masks leave the smallest anchor out, which must not take an object either."""
    boxes = torch.tensor(
        [[[3.0, 3, 4, 4], [0, 0, 128, 1], [0, 0, 1, 96], [20, 20, 21, 22], [0, 0, 128, 96]]]
    )
    is_object = torch.ones(1, 5, dtype=torch.bool)
    for masks in (MASKS, ((3, 4, 5), (1, 2, 3))):
        candidates = find_candidates(
            boxes, is_object, SHAPES[:2], BoxCoder(ANCHORS, masks), LossConfig(assign=assign)
        )
        assert candidates.valid.any(2).all()


def test_every_index_is_a_prediction_even_for_boxes_outside_the_image() -> None:
    boxes = torch.tensor([[[-50.0, -50, -40, -40], [300, 300, 400, 400], [128, 96, 128, 96]]])
    candidates = find_candidates(
        boxes, torch.ones(1, 3, dtype=torch.bool), SHAPES[:2], coder(), LossConfig()
    )
    assert candidates.index.min() >= 0 and candidates.index.max() < 3 * (12 + 48)


def random_candidates() -> tuple[Candidates, Tensor]:
    valid = torch.rand(2, 4, 12) < 0.5
    valid[0, 0] = False
    return Candidates(torch.arange(12).expand(2, 4, 12), valid), torch.rand(2, 4, 12)


def test_keep_aligned_keeps_the_best_of_each_object() -> None:
    candidates, alignment = random_candidates()
    keep = keep_aligned(candidates, alignment, 3).valid
    for image in range(2):
        for obj in range(4):
            valid = [k for k in range(12) if candidates.valid[image, obj, k]]
            best = sorted(valid, key=lambda k: -alignment[image, obj, k].item())[:3]
            assert keep[image, obj].nonzero().flatten().tolist() == sorted(best)


def test_keep_aligned_keeps_something_when_nothing_overlaps() -> None:
    candidates, alignment = random_candidates()
    keep = keep_aligned(candidates, torch.zeros_like(alignment), 1).valid
    assert torch.equal(keep.any(2), candidates.valid.any(2))
    assert not (keep & ~candidates.valid).any()


def test_neighbors_are_within_reach_of_the_decoding() -> None:
    """Every candidate of `ratio` can place its center on the object's."""
    box = coder()
    candidates = find_candidates(BOXES, IS_OBJECT, SHAPES[:2], box, LossConfig())
    grid = box.make_grid(SHAPES[:2])
    for image, obj, k in candidates.valid.nonzero().tolist():
        center = (BOXES[image, obj, :2] + BOXES[image, obj, 2:]) / 2
        index = candidates.index[image, obj, k]
        reach = (center / grid.stride[index] - grid.cell[index] - 0.5).abs().max().item()
        assert reach <= 1.0 + 1e-6
