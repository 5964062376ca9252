"""Detection in tiles: as by supervision's slicer, and without tiles where none are due."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import supervision as sv

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.tiling import Tiling, make_tiling
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import PredictConfig

LIMITS = PredictConfig(score=0.01, nms_iou=0.3, max_detections=200)


@pytest.fixture(scope="module")
def plain() -> Detector:
    config = load_config("shapes.yaml", ["input_size=64", "precision=fp32", "device=cpu"])
    return Detector(build_model(config, 3), config, list("abc"), backend="torch")


def tiled(plain: Detector, *values: float) -> Detector:
    detector = Detector(plain.network, plain.config, plain.names, backend="torch")
    detector.tiling = Tiling(*values)  # type: ignore[arg-type]
    return detector


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_equal(first: Detections, second: Detections) -> None:
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (64, 3), (40, 64)])
def test_an_image_that_fits_in_a_tile_is_not_divided(plain: Detector, size: tuple[int, int]):
    image = image_of(*size)
    assert_equal(tiled(plain, 64)(image, LIMITS), plain(image, LIMITS))


@pytest.mark.parametrize("size", [(90, 150), (200, 30), (65, 64)])
def test_as_by_the_slicer_of_supervision(plain: Detector, size: tuple[int, int]):
    image = image_of(*size)
    noise = np.random.default_rng(0)
    seen: list[Detections] = []

    def callback(tile: np.ndarray) -> sv.Detections:
        found = plain(np.ascontiguousarray(tile), LIMITS)
        # no two scores are the same: which of two equal boxes is kept is a matter of the library
        scores = found.scores * noise.uniform(0.999, 1, len(found)).astype(np.float32)
        found = replace(found, scores=scores)
        seen.append(found)
        return sv.Detections(found.boxes, confidence=found.scores, class_id=found.labels)

    slicer = sv.InferenceSlicer(
        callback, slice_wh=(64, 64), overlap_wh=(16, 16), iou_threshold=LIMITS.nms_iou
    )
    expected = slicer(image)
    expected = expected[np.argsort(-expected.confidence, kind="stable")][: LIMITS.max_detections]
    again = iter(seen)
    limits = LIMITS.nms_iou, LIMITS.max_detections
    got = Tiling(64, 0.25).detect(image, lambda tile: next(again), *limits)
    assert len(got) > 50 and (got.height, got.width) == size and got.names == plain.names
    np.testing.assert_allclose(got.boxes, expected.xyxy, atol=1e-4)
    np.testing.assert_array_equal(got.scores, expected.confidence)
    np.testing.assert_array_equal(got.labels, expected.class_id)
    assert got.boxes.dtype == np.float32 and got.labels.dtype == np.int64
    # class-wise NMS across the tiles, at the IoU of the run
    for label in range(3):
        boxes = got.only([plain.names[label]]).boxes
        ious = sv.box_iou_batch(boxes, boxes) - np.eye(len(boxes))
        assert ious.max(initial=0) <= LIMITS.nms_iou + 1e-6


def test_many_boxes_in_many_tiles_need_little_memory(plain: Detector):
    found = Detections(
        boxes=np.random.default_rng(0).uniform(0, 60, (200, 4)).astype(np.float32),
        scores=np.random.default_rng(1).uniform(0, 1, 200).astype(np.float32),
        labels=np.arange(200) % 3,
        names=plain.names,
        height=64,
        width=64,
    )
    found.boxes[:, 2:] = found.boxes[:, :2] + 1
    tracemalloc.start()
    joined = Tiling(64, 0).detect(image_of(1280, 1280), lambda tile: found, 0.5, 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(joined) > 40_000 and peak < 200 * 2**20  # the IoU of all pairs: 50 GiB


def test_small_and_large_images_in_a_list_keep_their_order(plain: Detector):
    images = [image_of(90, 150), image_of(30, 40), image_of(64, 65)]
    together = tiled(plain, 64)(images, LIMITS)
    for one, image in zip(together, images, strict=True):
        assert (one.height, one.width) == image.shape[:2]
        np.testing.assert_allclose(one.scores, tiled(plain, 64)(image, LIMITS).scores, atol=1e-5)


def test_only_the_chosen_classes_and_nothing_at_all(plain: Detector):
    detector = tiled(plain, 64)
    detector.classes = ("b",)
    assert set(detector(image_of(90, 150), LIMITS).labels) == {1}
    nothing = detector(image_of(90, 150), PredictConfig(score=1))
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (31, None, "--tile: expected 32 to 16,384 pixels, got 31"),
        (100_000, None, "--tile: expected"),
        (64, 0.95, "--overlap: expected 0 to 0.9, got 0.95"),
        (64, float("nan"), "--overlap: expected 0 to 0.9, got nan"),
        (None, 0.1, "--overlap: only with --tile"),
    ],
)
def test_values_out_of_range_are_one_line(tile: int | None, overlap: float | None, message: str):
    with pytest.raises(UserError, match=message):
        make_tiling(tile, overlap)
    assert make_tiling(None, None) is None
