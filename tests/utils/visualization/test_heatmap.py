"""Heat over images: where a cell of the map lands, colors, and the sheets."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nets.inference.detections import Detections
from utils.core.images import Letterbox
from utils.visualization.heatmap import (
    AnnotatedImage,
    BarPanel,
    BranchPanel,
    HeatPanel,
    PanelRow,
    PointPanel,
    TextPanel,
    _points,
    draw_sheet,
    map_to_image,
    overlay,
    share_on_padding,
)


def one_cell(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    heat = np.zeros((rows, columns), np.float32)
    heat[row, column] = 1
    return heat


@pytest.mark.parametrize(
    ("source", "target", "cells", "cell"),
    [
        ((64, 64), (64, 64), (16, 16), (3, 10)),  # no letterbox
        ((64, 128), (64, 64), (16, 16), (7, 5)),  # 128 x 64 -> 64 x 32 with 16 pixels above
        ((128, 64), (64, 64), (16, 16), (12, 8)),  # the same on its side
        ((300, 480), (416, 416), (26, 26), (13, 20)),
        ((50, 30), (416, 320), (13, 10), (6, 6)),  # enlarged
    ],
)
def test_a_cell_lands_where_the_letterbox_took_it_from(source, target, cells, cell):
    boxing = Letterbox(source, target)
    resampled = map_to_image(one_cell(*cells, *cell), boxing)
    assert resampled.shape == source and resampled.dtype == np.float32
    y, x = (float(np.average(axis, weights=resampled)) + 0.5 for axis in np.indices(source))
    stride = target[0] / cells[0]
    middle = np.array([[(cell[1] + 0.5) * stride, (cell[0] + 0.5) * stride] * 2])
    expected_x, expected_y = boxing.boxes_to_original(middle)[0, :2]
    assert (x, y) == (pytest.approx(expected_x, abs=0.6), pytest.approx(expected_y, abs=0.6))


def test_known_places_by_hand():
    """128 x 64 enters 64 x 64 at half size, 16 pixels lower: cell (1, 0) covers the top left."""
    resampled = map_to_image(one_cell(4, 4, 1, 0), Letterbox((64, 128), (64, 64)))
    assert resampled[15:17, :17].min() > 0.95
    assert resampled[32, 8] == pytest.approx(0.5, abs=0.05) and resampled[16, 32] == pytest.approx(
        0.5, abs=0.05
    )
    assert resampled[:, 48:].max() == 0 and resampled[48:].max() == 0


def test_padding_is_left_out():
    heat = np.zeros((4, 4), np.float32)
    heat[0], heat[3] = 9, 9  # the rows of padding above and below
    resampled = map_to_image(heat, Letterbox((64, 128), (64, 64)))
    assert resampled[16:48].max() == 0, "padding may only touch the border, between cell centers"


def test_the_share_on_the_padding():
    boxing = Letterbox((64, 128), (64, 64))  # 16 pixels of padding above and below
    assert share_on_padding(np.ones((4, 4)), boxing) == pytest.approx(0.5)
    assert share_on_padding(one_cell(4, 4, 0, 2), boxing) == pytest.approx(1)
    assert share_on_padding(-one_cell(4, 4, 2, 2), boxing) == pytest.approx(0)
    assert share_on_padding(one_cell(2, 2, 1, 0), boxing) == pytest.approx(0.5)
    assert share_on_padding(np.zeros((4, 4)), boxing) == 0


def test_points_land_where_the_letterbox_took_them_from():
    """128 x 64 enters 64 x 64 at half size, 16 pixels lower."""
    axes, image = Figure().subplots(), np.zeros((64, 128, 3), np.uint8)
    none = np.zeros(0, np.float32)
    found = Detections(none.reshape(0, 4), none, none.astype(int), ("cat",), 128, 64)
    scene = AnnotatedImage(image, found, Letterbox((64, 128), (64, 64)), (0, 0))
    _points(axes, np.array([[0.25, 0.5], [1, 0.25], [0.5, 0.1]]), scene)
    expected = np.array([[32, 32], [128, 0], [64, -19.2]]) - 0.5  # the last lies on the padding
    assert axes.lines[0].get_xydata() == pytest.approx(expected)
    assert axes.get_ylim() == (63.5, -0.5)


def test_a_smaller_size_is_the_same_map():
    heat = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    boxing = Letterbox((300, 480), (96, 96))
    whole, half = map_to_image(heat, boxing), map_to_image(heat, boxing, (150, 240))
    assert half.shape == (150, 240)
    assert np.abs(half - whole.reshape(150, 2, 240, 2).mean((1, 3))).max() < 0.01


def test_overlay_colors_follow_the_heat_and_keep_the_image():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    before = image.copy()
    heat = np.tile(np.linspace(0.4, 0.6, 8, dtype=np.float32)[:, None], (1, 8))
    painted = overlay(image, heat, "viridis").astype(int)
    assert (image == before).all() and painted.shape == image.shape
    low, high = painted[0, 0], painted[7, 0]  # viridis: dark blue to yellow, whatever the range is
    assert low[2] > low[1] and high[0] > high[2] and high.sum() > low.sum()
    assert (painted[:, 6].sum(1) > painted[:, 1].sum(1)).all(), "the image must shine through"


def test_rounding_noise_is_not_shown_as_a_pattern():
    heat = np.full((8, 8), 0.5, np.float32)
    heat[::2] += 1e-8
    assert (
        len(np.unique(overlay(np.full((8, 8, 3), 99, np.uint8), heat).reshape(-1, 3), axis=0)) == 1
    )


PANELS = [
    HeatPanel("spatial", np.random.default_rng(0).random((4, 4))),
    HeatPanel("query $1", np.random.default_rng(1).random((4, 4)), "magma", marked=True),
    BarPanel("channel", np.random.default_rng(2).random(16)),
    BranchPanel("branch", np.random.default_rng(3).random((3, 16))),
    PointPanel("points", np.random.default_rng(4).random((9, 2))),
    TextPanel("activation", "nothing here"),
]


@pytest.mark.parametrize("size", [(600, 250), (4, 90)])
def test_a_sheet_holds_panels_of_any_kind_for_images_of_any_size(size):
    image = np.full((*size, 3), 128, np.uint8)
    boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
    found = Detections(
        boxes, np.array([0.9], np.float32), np.array([0]), ("cat",), size[1], size[0]
    )
    scene = AnnotatedImage(image, found, Letterbox(size, (64, 64)), (size[1] / 2, size[0] / 2))
    short = draw_sheet(scene, [PanelRow("feat1", PANELS[:1])], "title")
    long = draw_sheet(
        scene, [PanelRow("feat1: cbam\n4 x 4", PANELS), PanelRow("feat2", PANELS[:2])], "title"
    )
    assert short.dtype == np.uint8 and short.shape[2] == 3
    assert long.shape[0] > 1.5 * short.shape[0] and long.shape[1] > 2 * short.shape[1]
    assert len(np.unique(long.reshape(-1, 3), axis=0)) > 50
    assert (image == 128).all()
