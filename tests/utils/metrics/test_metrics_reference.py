"""The evaluator against pycocotools' documented use from files, and a loop over VOC's rules."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.inference.detections import Detections
from utils.data.sample import Sample
from utils.metrics import evaluate

NAMES = ("cat", "dog", "bird", "absent")


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([640, 480]) - size)
    return np.concatenate([corner, corner + size], axis=1)


def random_set(
    seed: int, images: int = 40, objects: int = 12
) -> tuple[list[Sample], list[Detections]]:
    """Objects in clusters, several detections each, some of the wrong class, with equal scores."""
    rng = np.random.default_rng(seed)
    samples, detections = [], []
    for image in range(images):
        count = 0 if image % 9 == 0 else int(rng.integers(1, objects))
        boxes = random_boxes(rng, count)
        boxes = np.concatenate(
            [boxes, boxes[: count // 2] + rng.normal(0, 6, (count // 2, 1))]
        ).clip(0, 640)
        labels = rng.integers(0, 3, len(boxes))
        around = np.repeat(boxes, 4, axis=0)
        around += rng.normal(0, 0.09, around.shape) * np.tile(around[:, 2:] - around[:, :2], 2)
        around_labels = np.where(
            rng.random(len(around)) < 0.85, np.repeat(labels, 4), rng.integers(0, 3, len(around))
        )
        stray = random_boxes(rng, 6)
        every = np.concatenate([around, stray]) if image % 7 else np.zeros((0, 4))
        every_labels = np.concatenate([around_labels, rng.integers(0, 3, 6)])[: len(every)]
        scores = np.round(rng.random(len(every)), 2)
        order = np.argsort(-scores, kind="stable")
        every, scores = every[order].astype(np.float32), scores[order].astype(np.float32)
        difficult, crowd = rng.random(len(boxes)) < 0.2, rng.random(len(boxes)) < 0.1
        samples.append(
            Sample(
                Path(f"{image}.jpg"), 640, 480, boxes.astype(np.float32), labels, difficult, crowd
            )
        )
        detections.append(Detections(every, scores, every_labels[order], NAMES, 640, 480))
    return samples, detections


def xywh(boxes: np.ndarray) -> list[list[float]]:
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]


def coco_from_files(samples, detections, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """COCOeval as its documentation shows it: `(stats, precision)`."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (truth, answer) in enumerate(zip(samples, detections, strict=True), 1):
        for box, label, crowd in zip(
            xywh(truth.boxes), truth.labels.tolist(), truth.crowd.tolist(), strict=True
        ):
            item = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": label + 1,
                "bbox": box,
            }
            annotations.append({**item, "area": box[2] * box[3], "iscrowd": int(crowd)})
        for box, score, label in zip(
            xywh(answer.boxes), answer.scores.tolist(), answer.labels.tolist(), strict=True
        ):
            results.append(
                {"image_id": image, "category_id": label + 1, "bbox": box, "score": score}
            )
    images = [{"id": index} for index in range(1, len(samples) + 1)]
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES, 1)]
    ground_truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "gt.json").write_text(json.dumps(ground_truth))
    (folder / "dt.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "gt.json"))
        evaluator = COCOeval(truth, truth.loadRes(str(folder / "dt.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats, evaluator.eval["precision"]


@pytest.mark.parametrize(("seed", "objects"), [(0, 12), (1, 12), (2, 90)])
def test_coco_equals_pycocotools_run_from_files(seed, objects, tmp_path, capsys):
    # 90 objects an image give more than 100 detections of a class: the cut at 100 is met
    samples, detections = random_set(seed, images=40 if objects < 50 else 5, objects=objects)
    if objects > 50:
        assert (
            max(np.bincount(item.labels, minlength=1).max() for item in detections if len(item))
            > 100
        )
    stats, precision = coco_from_files(samples, detections, tmp_path)
    metrics = evaluate(samples, detections, NAMES)
    ours = [
        *(metrics.map50_95, metrics.map50, metrics.map75),
        *(metrics.map_small, metrics.map_medium, metrics.map_large, metrics.ar100),
    ]
    assert ours == pytest.approx([*stats[:6], stats[8]], abs=1e-12)
    assert 0.05 < metrics.map50_95 < 0.95  # the case says something
    for k, name in enumerate(NAMES[:3]):
        item = metrics.per_class[name]
        assert item.ap50_95 == pytest.approx(precision[:, :, k, 0, 2].mean(), abs=1e-12)
        assert item.ap50 == pytest.approx(precision[0, :, k, 0, 2].mean(), abs=1e-12)
        np.testing.assert_allclose(item.precision, precision[0, :, k, 0, 2], atol=1e-12)
    assert capsys.readouterr().out == ""


def plain_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def plain_voc(samples, detections, label) -> tuple[float, float]:
    """VOC AP by definition: detection by detection, then the area under the curve and 11 points."""
    positives = sum(int(((r.labels == label) & ~r.difficult).sum()) for r in samples)
    queue = [
        (float(score), image, box.tolist())
        for image, item in enumerate(detections)
        for box, score, kind in zip(item.boxes, item.scores, item.labels, strict=True)
        if kind == label
    ]
    queue.sort(key=lambda entry: -entry[0])
    used: set[tuple[int, int]] = set()
    hits = misses = 0
    curve = []
    for _, image, box in queue:
        best, best_iou = -1, 0.0
        for index, (other, kind) in enumerate(
            zip(samples[image].boxes.tolist(), samples[image].labels, strict=True)
        ):
            if kind == label and plain_iou(box, other) > best_iou:
                best, best_iou = index, plain_iou(box, other)
        if best_iou >= 0.5 and samples[image].difficult[best]:
            continue
        if best_iou >= 0.5 and (image, best) not in used:
            used.add((image, best))
            hits += 1
        else:
            misses += 1
        curve.append((hits / positives, hits / (hits + misses)))
    area, before = 0.0, 0.0
    for index, (recall, _) in enumerate(curve):
        area += (recall - before) * max(precision for _, precision in curve[index:])
        before = recall
    points = [
        max([precision for recall, precision in curve if recall >= k / 10], default=0.0)
        for k in range(11)
    ]
    return area, sum(points) / 11


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_voc_equals_a_plain_loop(seed):
    samples, detections = random_set(seed)
    samples = [replace(item, crowd=np.zeros_like(item.crowd)) for item in samples]
    metrics = evaluate(samples, detections, NAMES)
    expected = [plain_voc(samples, detections, label) for label in range(3)]
    for name, (area, points) in zip(NAMES, expected, strict=False):
        assert metrics.per_class[name].voc_ap50 == pytest.approx(area, abs=1e-12)
        assert metrics.per_class[name].voc_ap50_11point == pytest.approx(points, abs=1e-12)
    assert metrics.voc_ap50 == pytest.approx(np.mean([area for area, _ in expected]), abs=1e-12)
    assert metrics.voc_ap50_11point == pytest.approx(
        np.mean([points for _, points in expected]), abs=1e-12
    )
