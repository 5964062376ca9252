"""Geometry of boxes: what is cut, what is dropped, where tiles lie."""

import math

import pytest
import torch
from torch import Tensor

from utils.data.warp import Geometry, warp_boxes, warp_images

SIZE = (60, 100)  # height, width


def geometry(
    linear: object = ((1.0, 0.0), (0.0, 1.0)),
    shift: tuple[float, float] = (0.0, 0.0),
    mirror: tuple[float, float] = (1.0, 1.0),
    meeting: tuple[float, float] | None = None,
) -> Geometry:
    """One image: a single tile that is moved by `shift` pixels, or four that meet at `meeting`."""
    anchor = meeting or (SIZE[1] / 2 + shift[0], SIZE[0] / 2 + shift[1])
    whole = torch.tensor([0.0, 0, SIZE[1], SIZE[0]]).expand(1, 4 if meeting else 1, 4)
    return Geometry(
        torch.tensor([linear]), torch.tensor([anchor]), torch.tensor([mirror]), whole, SIZE
    )


def moved(
    boxes: list[list[float]], labels: list[int] | None = None, **where: object
) -> tuple[Tensor, list[int]]:
    rows = torch.tensor([[boxes]], dtype=torch.float32)
    out, classes = warp_boxes(rows, torch.tensor([[labels or [0] * len(boxes)]]), geometry(**where))
    return out[0], classes[0].tolist()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [20, 10, 40, 30]),
        ({"shift": (7.0, -3.0)}, [27, 7, 47, 27]),
        ({"mirror": (-1.0, 1.0)}, [60, 10, 80, 30]),
        ({"mirror": (1.0, -1.0)}, [20, 30, 40, 50]),
        ({"linear": ((0.5, 0.0), (0.0, 0.5))}, [35, 20, 45, 30]),
        ({"linear": ((0.0, -1.0), (1.0, 0.0))}, [50, 0, 70, 20]),  # a quarter turn about the middle
        ({"shift": (10.0, 0.0), "mirror": (-1.0, 1.0)}, [50, 10, 70, 30]),  # mirrored last
    ],
)
def test_boxes_go_where_the_map_sends_them(where: dict, expected: list[float]) -> None:
    boxes, labels = moved([[20, 10, 40, 30]], [7], **where)
    assert labels == [7]
    torch.testing.assert_close(
        boxes[0], torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0
    )


def test_boxes_are_cut_at_the_border() -> None:
    boxes, labels = moved([[-5, 10, 20, 30], [80, 40, 130, 70]], shift=(-4.0, 0.0))
    assert labels == [0, 0]
    torch.testing.assert_close(
        boxes, torch.tensor([[0.0, 10, 16, 30], [76, 40, 100, 60]]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("box", "shift", "kept"),
    [
        ([0, 10, 10, 20], -7.0, True),  # 3 of 10 pixels remain
        ([0, 10, 10, 20], -8.5, False),  # 1.5 pixels: too thin, and less than a fifth
        ([0, 10, 5, 20], -3.2, False),  # more than a third, but 1.8 pixels
        ([0, 10, 40, 50], -33.0, False),  # 7 pixels, but less than a fifth
        ([0, 10, 40, 50], -31.0, True),
        ([0, 10, 40, 50], -41.0, False),  # gone
        ([10, 10, 11, 40], 0.0, False),  # thin from the start
    ],
)
def test_small_remains_are_dropped(box: list[float], shift: float, kept: bool) -> None:
    boxes, labels = moved([box, [40, 20, 90, 50]], [3, 4], shift=(shift, 0.0))
    assert labels == ([3, 4] if kept else [-1, 4])
    if not kept:
        assert boxes[0].tolist() == [0, 0, 0, 0]


def test_padding_stays_padding() -> None:
    assert moved([[20, 10, 40, 30], [20, 10, 40, 30]], [-1, 5])[1] == [-1, 5]


def test_a_turned_box_is_the_hull_of_its_turned_corners() -> None:
    angle = math.radians(30)
    turn = ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle)))
    boxes, _ = moved([[40, 20, 60, 40]], linear=turn)
    half = 10 * (math.cos(angle) + math.sin(angle))
    expected = torch.tensor([50 - half, 30 - half, 50 + half, 30 + half])
    torch.testing.assert_close(boxes[0], expected, atol=1e-4, rtol=0)


def test_tiles_touch_the_meeting_point_with_their_inner_corners() -> None:
    """The whole tile as its box: what is shown of it fills its quadrant."""
    whole = torch.tensor([0.0, 0, SIZE[1], SIZE[0]]).view(1, 1, 1, 4).expand(1, 4, 1, 4)
    labels = torch.arange(4).view(1, 4, 1)
    boxes, classes = warp_boxes(whole, labels, geometry(meeting=(48.0, 33.0)))
    assert classes.tolist() == [[0, 1, 2, 3]]
    assert boxes[0].tolist() == [
        [0, 0, 48, 33],
        [48, 0, 100, 33],
        [0, 33, 48, 60],
        [48, 33, 100, 60],
    ]


def test_an_object_is_cut_where_its_tile_ends() -> None:
    box = (
        torch.tensor([70.0, 20, 100, 60]).view(1, 1, 1, 4).expand(1, 4, 1, 4)
    )  # at the tile's lower right corner
    boxes, classes = warp_boxes(box, torch.arange(4).view(1, 4, 1), geometry(meeting=(40.0, 35.0)))
    assert boxes[0, 0].tolist() == [
        10,
        0,
        40,
        35,
    ]  # 30 x 40 pixels that end at the meeting point, cut at the top
    assert classes[0].tolist() == [0, -1, -1, -1], (
        "in the other tiles that corner is outside the image"
    )


def test_the_identity_samples_the_pixels_themselves() -> None:
    image = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(warp_images(image, geometry()), image, atol=1e-4, rtol=0)
    flipped = warp_images(image, geometry(mirror=(-1.0, -1.0)))
    torch.testing.assert_close(flipped, image.flip(2, 3), atol=1e-4, rtol=0)


def test_outside_the_image_is_zero() -> None:
    shown = warp_images(torch.ones(1, 3, *SIZE), geometry(shift=(30.0, 0.0)))
    assert shown[..., :29].abs().max() == 0 and shown[..., 31:].min() > 0.999


def test_a_whole_pixel_shift_moves_pixels_unchanged_in_every_tile() -> None:
    stack = torch.rand(1, 3, 4 * SIZE[0], SIZE[1])
    shown = warp_images(stack, geometry(meeting=(40.0, 35.0)))
    tiles = stack.unflatten(2, (4, SIZE[0]))
    torch.testing.assert_close(shown[..., :35, :40], tiles[:, :, 0, 25:, 60:], atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[..., :35, 40:], tiles[:, :, 1, 25:, :60], atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[..., 35:, :40], tiles[:, :, 2, :25, 60:], atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[..., 35:, 40:], tiles[:, :, 3, :25, :60], atol=1e-3, rtol=0)
