"""What holds for all boxes: overlap, suppression, letterbox, box coder."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, complete_box_iou

from nets.ops import nms
from nets.ops.boxes import complete_iou, pairwise_iou, shape_iou
from nets.ops.nms import RawDetections, non_max_suppression
from nets.yolo.box_coder import DARKNET, BoxCoder
from utils.core.images import PAD_VALUE, Letterbox

COORDINATES = st.floats(-10_000, 10_000, width=32)
SIDES = st.floats(0, 10_000, width=32)
ROWS = st.tuples(COORDINATES, COORDINATES, SIDES, SIDES)
SHORT = st.integers(0, 8)
# Many of these overlap, touch, repeat or are empty
GRID_ROWS = st.tuples(SHORT, SHORT, SHORT, SHORT)


def as_boxes(rows: list[tuple[float, ...]]) -> Tensor:
    """x1 y1 width height -> x1 y1 x2 y2."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([table[:, :2], table[:, :2] + table[:, 2:]], 1)


BOXES = (st.lists(ROWS, max_size=6) | st.lists(GRID_ROWS, max_size=6)).map(as_boxes)


def areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


@given(BOXES, BOXES)
def test_iou_is_symmetric_at_most_1_and_that_of_torchvision(first: Tensor, second: Tensor) -> None:
    overlap = pairwise_iou(first, second)
    assert overlap.shape == (len(first), len(second))
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert torch.equal(overlap, pairwise_iou(second, first).T)
    assert np.array_equal(pairwise_iou(first.numpy(), second.numpy()), overlap.numpy())
    expected = box_iou(first, second).nan_to_num(0)  # two empty boxes
    torch.testing.assert_close(overlap, expected)


@given(BOXES)
def test_a_box_is_itself_unless_it_is_empty(boxes: Tensor) -> None:
    overlap = pairwise_iou(boxes, boxes).diagonal()
    usual = areas(boxes) >= torch.finfo(torch.float32).tiny
    assert (overlap[usual] == 1).all() and (overlap[~usual] < 1).all()


@given(st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=6))
def test_ciou_lies_below_iou_and_has_a_gradient(pairs: list) -> None:
    boxes, targets = (as_boxes(list(rows)) for rows in zip(*pairs, strict=True))
    boxes.requires_grad_()
    overlap, ciou = complete_iou(boxes, targets)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert ((ciou >= -2 - 1e-5) & (ciou <= overlap)).all()
    (gradient,) = torch.autograd.grad(ciou.sum(), boxes)
    assert gradient.isfinite().all()
    sides = torch.cat([boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]], 1)
    usual = (sides >= 1).all(1)
    expected = complete_box_iou(boxes, targets).diagonal()
    torch.testing.assert_close(ciou[usual], expected[usual], atol=1e-4, rtol=1e-4)


@given(st.lists(st.tuples(*[st.floats(0.125, 10_000, width=32)] * 4), min_size=1, max_size=6))
def test_iou_of_shapes_is_that_of_boxes_at_one_corner(rows: list) -> None:
    sides = torch.tensor(rows)
    first, second = (torch.cat([torch.zeros(len(rows), 2), part], 1) for part in sides.split(2, 1))
    expected = pairwise_iou(first, second).diagonal()
    torch.testing.assert_close(shape_iou(sides[:, :2], sides[:, 2:]), expected)


# suppression


@st.composite
def candidates(draw: st.DrawFn, equal_scores: bool) -> tuple[Tensor, Tensor]:
    """Boxes `(n, 4)` and scores `(n, C)`."""
    boxes = as_boxes(draw(st.lists(GRID_ROWS, max_size=12)))
    count, classes = len(boxes), draw(st.integers(1, 3))
    if equal_scores:
        values = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=count * classes)
        return boxes, torch.tensor(draw(values)[: count * classes]).view(count, classes)
    order = draw(st.permutations(range(count * classes)))
    scores = (torch.tensor(order, dtype=torch.float32) + 0.5) / max(1, count * classes)
    return boxes, scores.view(count, classes)


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
LIMITS = st.builds(
    nms._Limits,
    score=st.sampled_from([0.0, 0.1, 0.5]),
    nms_iou=THRESHOLDS,
    max_detections=st.integers(1, 40),
    vote_iou=THRESHOLDS,
)


def suppress(
    boxes: Tensor, scores: Tensor, limits: nms._Limits
) -> tuple[RawDetections, RawDetections]:
    """The detections by both implementations."""
    batch = boxes[None], scores[None]
    return non_max_suppression(*batch, **vars(limits))[0], nms._suppress_batch(*batch, limits)[0]


def without_votes(limits: nms._Limits) -> nms._Limits:
    return nms._Limits(**{**vars(limits), "vote_iou": 1.0})


@given(candidates(equal_scores=False), LIMITS)
def test_both_implementations_of_nms_agree(candidates: tuple, limits: nms._Limits) -> None:
    alone, batch = suppress(*candidates, limits)
    torch.testing.assert_close(tuple(batch), tuple(alone))


@given(candidates(equal_scores=False), LIMITS)
def test_nms_without_votes_is_that_of_torchvision_and_changes_nothing_twice(
    candidates: tuple, limits: nms._Limits
) -> None:
    boxes, scores = candidates
    for found in suppress(boxes, scores, without_votes(limits)):
        index, labels = (scores > limits.score).nonzero(as_tuple=True)
        own = scores[index, labels]
        # in double precision, so that an IoU that equals the limit is not above it
        keep = batched_nms(boxes[index].double(), own.double(), labels, limits.nms_iou)
        keep = keep[: limits.max_detections]
        expected = RawDetections(boxes[index[keep]], own[keep], labels[keep])
        torch.testing.assert_close(tuple(found), tuple(expected), atol=0, rtol=0)
        one_hot = torch.zeros(len(found.labels), scores.shape[1])
        one_hot[range(len(found.labels)), found.labels] = found.scores
        for again in suppress(found.boxes, one_hot, without_votes(limits)):
            torch.testing.assert_close(tuple(again), tuple(found), atol=0, rtol=0)


@given(candidates(equal_scores=True), LIMITS)
def test_nms_keeps_its_rules_for_equal_scores(candidates: tuple, limits: nms._Limits) -> None:
    """Kept boxes of a class overlap little, and each dropped one overlaps a better one much."""
    boxes, scores = candidates
    for found in suppress(boxes, scores, without_votes(limits)):
        assert (found.scores.diff() <= 0).all()
        assert len(found.scores) <= limits.max_detections
        overlap = pairwise_iou(found.boxes, found.boxes).fill_diagonal_(0)
        same = found.labels[:, None] == found.labels
        assert (overlap[same] <= limits.nms_iou).all()
        if len(found.scores) == limits.max_detections:
            continue
        for index, label in (scores > limits.score).nonzero().tolist():
            better = (found.labels == label) & (found.scores >= scores[index, label])
            rivals = found.boxes[better]
            is_kept = (rivals == boxes[index]).all(1).any()
            assert is_kept or (pairwise_iou(boxes[index][None], rivals) > limits.nms_iou).any()


@given(candidates(equal_scores=True), LIMITS)
def test_votes_change_boxes_only_and_stay_among_them(
    candidates: tuple, limits: nms._Limits
) -> None:
    voted, plain = suppress(*candidates, limits), suppress(*candidates, without_votes(limits))
    for with_votes, without in zip(voted, plain, strict=True):
        assert torch.equal(with_votes.scores, without.scores)
        assert torch.equal(with_votes.labels, without.labels)
        assert with_votes.boxes.isfinite().all()
        if len(without.labels):
            low, high = candidates[0].amin(0), candidates[0].amax(0)
            inside = (with_votes.boxes >= low - 1e-4) & (with_votes.boxes <= high + 1e-4)
            assert inside.all()


# letterbox

IMAGE_SIDES = st.integers(1, 5000)
INPUT_SIDES = st.integers(1, 40).map(lambda count: 32 * count)
FRACTION = st.floats(0, 1)


@given(
    st.tuples(IMAGE_SIDES, IMAGE_SIDES),
    st.tuples(INPUT_SIDES, INPUT_SIDES),
    st.lists(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), min_size=1, max_size=4),
)
def test_boxes_return_from_the_letterbox(
    size: tuple[int, int], input_size: tuple[int, int], rows: list
) -> None:
    letterbox = Letterbox(size, input_size)
    corners = np.sort(np.array(rows).reshape(-1, 2, 2), 1).reshape(-1, 4)
    boxes = corners * np.tile(size[::-1], 2)
    moved = letterbox.boxes_to_input(boxes)
    left, top = letterbox.offset
    height, width = letterbox.content_size
    low, high = np.array([left, top] * 2), np.array([left + width, top + height] * 2)
    assert (moved >= low - 1e-3).all() and (moved <= high + 1e-3).all()
    assert (low >= 0).all() and (high <= [*input_size[::-1]] * 2).all()
    pixel = 1 / min(height / size[0], width / size[1])  # of the input, in pixels of the image
    returned = letterbox.boxes_to_original(moved)
    np.testing.assert_allclose(returned, boxes, atol=1e-3 * max(1.0, pixel))
    assert (returned >= 0).all() and (returned <= np.tile(size[::-1], 2)).all()


@given(st.tuples(*[st.integers(1, 300)] * 2), st.tuples(*[st.sampled_from([32, 64, 96])] * 2))
def test_the_canvas_holds_the_whole_image_and_padding(
    size: tuple[int, int], input_size: tuple[int, int]
) -> None:
    letterbox = Letterbox(size, input_size)
    canvas = letterbox.apply(np.full((*size, 3), 200, np.uint8))
    assert canvas.shape == (*input_size, 3)
    (left, top), (height, width) = letterbox.offset, letterbox.content_size
    content = canvas[top : top + height, left : left + width]
    assert content.shape == (height, width, 3) and (content == 200).all()
    assert (canvas == 200).all(2).sum() == height * width
    assert np.isin(canvas, [200, PAD_VALUE]).all()


# box coder

LOGITS = st.floats(width=32, allow_nan=False)


@pytest.mark.parametrize("new_coords", [True, False])
@given(st.lists(st.tuples(*[LOGITS] * 7), min_size=6, max_size=6))
def test_decoded_boxes_are_finite_and_ordered(new_coords: bool, rows: list) -> None:
    coder = BoxCoder(DARKNET[2].anchors, DARKNET[2].masks, new_coords)
    maps = torch.tensor(rows, dtype=torch.float32).view(2, 1, 21, 1, 1)
    boxes, scores = coder(list(maps))
    assert boxes.isfinite().all() and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert boxes.square().isfinite().all()
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("new_coords", [True, False])
@given(
    st.lists(st.tuples(*[st.floats(0.001, 0.999)] * 4), min_size=30, max_size=30),
)
def test_decoding_inverts_the_formulas(new_coords: bool, rows: list) -> None:
    """Logits worked out from boxes: centers in reach of the cell, up to four anchors in size."""
    coder = BoxCoder(DARKNET[2].anchors, DARKNET[2].masks, new_coords)
    grid = coder.make_grid([(1, 2), (2, 4)])
    fraction = torch.tensor(rows, dtype=torch.float64)
    k = coder.scale_x_y
    center = (grid.cell + fraction[:, :2] * k - (k - 1) / 2) * grid.stride
    size = fraction[:, 2:] * 4 * grid.anchor
    offset = ((center / grid.stride - grid.cell + (k - 1) / 2) / k).logit()
    ratio = size / grid.anchor
    shape = (ratio.sqrt() / 2).logit() if new_coords else ratio.log()
    boxes = coder.decode_boxes(torch.cat([offset, shape], 1), grid)
    expected = torch.cat([center - size / 2, center + size / 2], 1).float()
    torch.testing.assert_close(boxes, expected, atol=1e-2, rtol=1e-5)
