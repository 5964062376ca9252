"""Boxes and labels on images of every size, and grids."""

import numpy as np
import pytest

from nets.inference import drawing, fonts
from nets.inference.detections import Detections
from nets.inference.drawing import class_color, draw_detections, draw_ground_truth, image_grid
from nets.ops.boxes import intersection

NAMES = ("cat", "a rather long class name", "Grüße", "x")
SIZES = [(64, 64), (48, 1000), (1000, 48), (480, 640), (1500, 2000), (8, 8)]


def detections(
    boxes: list[list[float]], labels: list[int], size: tuple[int, int], names=NAMES
) -> Detections:
    scores = np.linspace(0.95, 0.3, len(boxes)).astype(np.float32)
    boxes_ = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes_, scores, np.array(labels, np.int64), names, size[1], size[0])


def corners(size: tuple[int, int]) -> list[list[float]]:
    """Boxes in the four corners, the whole image, and one outside it by a rounding error."""
    h, w = size
    return [
        [0, 0, w / 3, h / 3],
        [w * 2 / 3, 0, w, h / 3],
        [0, h * 2 / 3, w / 3, h],
        [w * 2 / 3, h * 2 / 3, w, h],
        [0, 0, w, h],
        [w - 0.5, h - 0.5, w + 0.1, h + 0.1],
    ]


@pytest.mark.parametrize("size", SIZES)
def test_draws_at_any_size_without_touching_the_original(size):
    image = np.full((*size, 3), 128, np.uint8)
    out = draw_detections(image, detections(corners(size), [0, 1, 2, 3, 1, 1], size))
    assert (image == 128).all()
    assert out.shape == image.shape and out.dtype == np.uint8
    assert (out != 128).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("truth", [False, True])
def test_labels_lie_wholly_inside_the_image(size, truth, monkeypatch):
    areas: list[tuple[int, int, int, int]] = []
    place = drawing._place_tags

    def spy(boxes, tags, width, height, truth):
        positions = place(boxes, tags, width, height, truth)
        areas.extend(
            (x, y, x + s.shape[1], y + s.shape[0])
            for (x, y), s in zip(positions, tags, strict=True)
        )
        return positions

    monkeypatch.setattr(drawing, "_place_tags", spy)
    image, boxes, labels = np.zeros((*size, 3), np.uint8), corners(size), [0, 1, 2, 3, 1, 1]
    if truth:
        draw_ground_truth(image, np.array(boxes), np.array(labels), NAMES)
    else:
        draw_detections(image, detections(boxes, labels, size))
    assert len(areas) == len(boxes)
    for x1, y1, x2, y2 in areas:
        assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (1500, 2000)])
def test_box_frame_has_the_class_color_at_the_right_pixels(size):
    h, w = size
    image = np.full((h, w, 3), 7, np.uint8)
    out = draw_detections(image, detections([[w // 4, h // 2, w // 4 * 3, h - 2]], [3], size))
    x1, y1, x2, y2 = w // 4, h // 2, w // 4 * 3, h - 2
    paint = class_color(3)
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    for y, x in ((y2 - 1, middle_x), (middle_y, x1), (middle_y, x2 - 1), (y1, x2 - 1)):
        assert tuple(out[y, x]) == paint
    for y, x in ((y2, middle_x), (middle_y, x1 - 1), (middle_y, x2), (middle_y, middle_x)):
        assert tuple(out[y, x]) == (7, 7, 7)


def test_line_and_text_grow_with_the_image():
    def frame_and_label(side: int) -> tuple[int, int]:
        out = draw_detections(
            np.zeros((side, side, 3), np.uint8),
            detections([[side / 4] * 2 + [side * 0.9] * 2], [3], (side, side)),
        )
        column = (out[:, int(side * 0.7)] == class_color(3)).all(axis=1)
        label = (out[: int(side / 4), int(side / 4) + 1] == class_color(3)).all(axis=1)
        return int(column.sum()) // 2, int(label.sum())

    thin, small = frame_and_label(200)
    thick, large = frame_and_label(2000)
    assert thin == 1 and thick == 7
    assert small >= drawing.MIN_FONT_SIZE and large == pytest.approx(50 * 1.17, abs=4)


def test_label_moves_below_at_the_top_and_left_at_the_right_edge():
    size = (480, 640)
    out = draw_detections(
        np.zeros((*size, 3), np.uint8), detections([[600, 0, 640, 40]], [1], size)
    )
    ys, xs = np.nonzero((out == class_color(1)).all(axis=2))
    assert xs.min() < 560  # a long label beside the right edge reaches far to the left of its box
    assert ys.max() > 40  # and lies below the box, since there is no room above


def test_neighboring_labels_hardly_overlap():
    boxes = np.array(
        [[100, 100, 140, 140], [105, 102, 150, 145], [98, 104, 150, 150], [110, 98, 160, 160]]
    )
    tags = [np.zeros((16, 60, 3), np.uint8)] * 4
    positions = np.array(drawing._place_tags(boxes, tags, 640, 480, False))
    areas = np.concatenate([positions, positions + (60, 16)], axis=1)
    shared = intersection(areas.T[:, :, None], areas.T)
    np.fill_diagonal(shared, 0)
    assert shared.max() < 0.05 * 60 * 16  # all four would rather have nearly the same position


def test_text_color_contrasts_with_every_class_color():
    def luminance(rgb):
        linear = [
            v / 255 / 12.92 if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4
            for v in rgb
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for label in range(100):
        low, high = sorted(
            (luminance(class_color(label)), luminance(drawing._text_color(class_color(label))))
        )
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_colors_are_stable_and_distinct():
    assert class_color(0) == class_color(0)
    palette = np.array([class_color(label) for label in range(80)], float)
    distances = np.linalg.norm(palette[:, None] - palette[None], axis=2) + np.eye(80) * 1000
    assert distances.min() > 0
    assert distances[:20, :20].min() > 40


@pytest.mark.parametrize("name", ["Grüße", "кот", "naïve\nname"])
def test_non_ascii_names_are_drawn_with_their_own_glyphs(name):
    plain = draw_detections(
        np.zeros((100, 300, 3), np.uint8),
        detections([[20, 40, 200, 90]], [0], (100, 300), ("????",)),
    )
    drawn = draw_detections(
        np.zeros((100, 300, 3), np.uint8), detections([[20, 40, 200, 90]], [0], (100, 300), (name,))
    )
    assert (plain != drawn).any()
    assert fonts.find_font(drawing._one_line(name)).endswith("DejaVuSans.ttf")


def test_a_name_that_dejavu_lacks_takes_another_font_or_warns(monkeypatch):
    lacking = "猫"
    assert ord(lacking) not in fonts._characters(fonts.find_font("cat"))
    fonts.find_font.cache_clear()
    monkeypatch.setattr(fonts, "_installed_fonts", lambda: ())
    with pytest.warns(UserWarning, match="CJK"):
        assert fonts.find_font(lacking).endswith("DejaVuSans.ttf")
    fonts.find_font.cache_clear()
    monkeypatch.setattr(fonts, "_installed_fonts", lambda: ("other.ttf",))
    known = fonts._characters
    everything = frozenset(range(0x10000))
    monkeypatch.setattr(
        fonts, "_characters", lambda path: everything if path == "other.ttf" else known(path)
    )
    assert fonts.find_font(lacking) == "other.ttf"
    fonts.find_font.cache_clear()


def test_no_detections_leave_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    out = draw_detections(image, detections([], [], (50, 60)))
    assert (out == image).all() and out is not image


def test_truth_looks_different_from_a_detection():
    image = np.zeros((200, 200, 3), np.uint8)
    truth = draw_ground_truth(image, np.array([[40, 40, 160, 160]]), np.array([0]), NAMES)
    drawn = draw_detections(image, detections([[40, 40, 160, 160]], [0], (200, 200)))
    top = truth[40, 40:160]
    assert (top == 255).all(axis=1).any() and (top == class_color(0)).all(axis=1).any()  # dashes
    assert (drawn[40, 40:160] == class_color(0)).all()
    assert (image == 0).all()


def test_grid_places_every_image_in_reading_order():
    images = [np.full((30, 40, 3), 10 * index, np.uint8) for index in range(1, 6)]
    grid = image_grid(images, columns=3, gap=4)
    assert grid.shape == (2 * 30 + 4, 3 * 40 + 2 * 4, 3)
    for index in range(5):
        y, x = index // 3 * 34, index % 3 * 44
        assert (grid[y : y + 30, x : x + 40] == 10 * (index + 1)).all()
    assert (grid[34:, 88:] == 255).all()


def test_grid_of_large_and_mixed_images_stays_bounded():
    grid = image_grid(
        [np.zeros((3000, 4000, 3), np.uint8)] * 2 + [np.zeros((10, 3000, 3), np.uint8)]
    )
    assert max(grid.shape) <= drawing.MAX_GRID_SIDE + 100


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(np.zeros((4, 4, 3), np.float32), detections([], [], (4, 4)))
