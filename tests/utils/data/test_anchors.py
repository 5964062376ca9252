"""Anchors: known clusters are recovered, few boxes are handled, the measures are right."""

from pathlib import Path

import numpy as np
import pytest

from nets.ops.boxes import shape_iou
from nets.yolo.box_coder import DARKNET
from utils.data.anchors import AnchorFit, fit_anchors, measure_fit
from utils.data.sample import Sample

SIZE = (416, 416)


def samples_of(shapes, size=(416, 416), crowd=None) -> list[Sample]:
    shapes = np.asarray(shapes, np.float32).reshape(-1, 2)
    boxes = np.concatenate([np.zeros_like(shapes), shapes], 1)
    count = len(shapes)
    flags = np.zeros(count, bool) if crowd is None else np.array(crowd)
    return [
        Sample(
            Path("a"),
            size[1],
            size[0],
            boxes,
            np.zeros(count, np.int64),
            np.zeros(count, bool),
            flags,
        )
    ]


def brute_iou(a, b) -> float:
    overlap = min(a[0], b[0]) * min(a[1], b[1])
    return overlap / (a[0] * a[1] + b[0] * b[1] - overlap)


@pytest.mark.parametrize("count", [6, 9])
def test_known_clusters_are_found(count):
    rng = np.random.default_rng(0)
    centers = [(12, 20), (40, 15), (35, 80), (110, 60), (100, 200), (300, 310)]
    centers = np.array([*centers, (5, 4), (9, 70), (200, 25)][:count], float)
    shapes = np.concatenate([center * rng.uniform(0.93, 1.07, (60, 2)) for center in centers])
    anchors, fit = fit_anchors(samples_of(rng.permutation(shapes)), SIZE, count)
    assert anchors.shape == (count, 2)
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors, centers[np.argsort(centers.prod(1))], rtol=0.03)
    assert fit.recall == 1.0
    assert fit.mean_iou > 0.9
    assert fit.boxes == 60 * count


def test_two_clusters_of_twelve_boxes_against_every_partition():
    """Exhaustive search over the 2^12 ways to share the boxes between two anchors."""
    rng = np.random.default_rng(1)
    shapes = np.exp(rng.uniform(2.5, 5.5, (12, 2)))
    best = 0.0
    for code in range(1, 2**11):
        first = np.array([code >> bit & 1 for bit in range(12)], bool)
        anchors = np.array([np.median(shapes[first], 0), np.median(shapes[~first], 0)])
        best = max(
            best, np.mean([max(brute_iou(shape, anchor) for anchor in anchors) for shape in shapes])
        )
    assert fit_anchors(samples_of(shapes), SIZE, count=2)[1].mean_iou > 0.97 * best


def test_letterbox_crowd_and_order():
    shapes = [(10, 10), (20, 40), (30, 30), (8, 90), (50, 50), (60, 100), (200, 208)]
    anchors, _ = fit_anchors(samples_of(shapes, (208, 208), crowd=[False] * 6 + [True]), SIZE)
    expected = np.array(sorted(shapes[:6], key=lambda shape: shape[0] * shape[1])) * 2  # 208 -> 416
    np.testing.assert_allclose(anchors, expected)


def test_deterministic_and_seeded():
    shapes = np.random.default_rng(2).uniform(5, 300, (400, 2))
    first, again = (fit_anchors(samples_of(shapes), SIZE, seed=4)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, fit_anchors(samples_of(shapes), SIZE, seed=5)[0])


def test_better_than_the_default():
    shapes = np.random.default_rng(3).lognormal(4, 0.5, (500, 2))
    assert (
        fit_anchors(samples_of(shapes), SIZE)[1].mean_iou
        > measure_fit(shapes, np.array(DARKNET[2].anchors)).mean_iou + 0.05
    )


@pytest.mark.parametrize(("heads", "side"), [(2, 416), (3, 608)])
def test_without_boxes_the_default_scaled_to_the_input(heads, side):
    anchors, fit = fit_anchors(samples_of([]), (side // 2, side), 3 * heads)
    np.testing.assert_allclose(anchors, np.array(DARKNET[heads].anchors) * (1, 0.5))
    assert fit == AnchorFit(0.0, 0.0, 0)
    assert fit_anchors([], SIZE)[0].shape == (6, 2)


@pytest.mark.parametrize(("count", "total"), [(1, 6), (3, 6), (5, 6), (6, 6), (1, 9), (8, 9)])
def test_few_distinct_shapes_are_taken_as_they_are(count, total):
    shapes = [(20 + 30 * index, 50) for index in range(count)] * 4
    anchors, fit = fit_anchors(samples_of(shapes), SIZE, total)
    assert anchors.shape == (total, 2) and len(np.unique(anchors, axis=0)) == total
    assert (anchors > 0).all()
    assert (np.diff(anchors.prod(1)) >= 0).all()
    assert {tuple(anchor) for anchor in anchors.tolist()} >= set(shapes)
    assert fit.mean_iou == pytest.approx(1)
    assert fit.recall == 1


def test_shape_iou_and_measure_by_hand():
    shapes = np.array([(10.0, 10.0), (20.0, 5.0), (100.0, 3.0)])
    anchors = np.array([(10.0, 20.0), (24.0, 12.0)])
    table = shape_iou(shapes[:, None], anchors)
    for row, shape in enumerate(shapes):
        for column, anchor in enumerate(anchors):
            assert table[row, column] == pytest.approx(brute_iou(shape, anchor))
    fit = measure_fit(shapes, anchors)
    assert fit.recall == pytest.approx(2 / 3)  # 100 / 24 is beyond a factor of 4
    assert fit.mean_iou == pytest.approx(table.max(1).mean())
