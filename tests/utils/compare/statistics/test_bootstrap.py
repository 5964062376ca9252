"""AP of resampled test images against pycocotools, and the bootstrap over them."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.inference.detections import Detections
from utils.compare.reporting.examples import image_f1
from utils.compare.statistics.bootstrap import Groups, WeightedAP, bootstrap_images
from utils.data.sample import Sample
from utils.metrics.detection_metrics import evaluate

NAMES = ("a", "b", "c", "never")


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 70, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 30, (count, 2))], 1).astype(np.float32)


def random_dataset(images: int = 14, seed: int = 0) -> tuple[list[Sample], list[Detections]]:
    """Random images, one with a crowd; detections near most objects, and false ones."""
    rng = np.random.default_rng(seed)
    samples, detections = [], []
    for index in range(images):
        count = int(rng.integers(0, 5))
        truth, labels = boxes(rng, count), rng.integers(0, 3, count)
        crowd = np.zeros(count, bool)
        crowd[:1] = index == 3
        samples.append(
            Sample(Path(str(index)), 100, 100, truth, labels, np.zeros(count, bool), crowd)
        )
        seen = rng.random(count) < 0.8
        found = np.concatenate(
            [truth[seen] + rng.normal(0, 2, (int(seen.sum()), 4)), boxes(rng, 4)]
        ).astype(np.float32)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = np.sort(rng.random(len(found)).astype(np.float32))[::-1]
        classes = np.concatenate([labels[seen], rng.integers(0, 3, 4)])
        detections.append(Detections(found, scores, classes, NAMES, 100, 100))
    return samples, detections


def slow_ap(samples: list[Sample], detections: list[Detections]) -> tuple[float, float]:
    """(AP50, AP) in points as pycocotools documents its use."""
    objects, found = [], []
    for image, (sample, one) in enumerate(zip(samples, detections, strict=True), 1):
        for box, label, crowd in zip(sample.boxes, sample.labels, sample.crowd, strict=True):
            x1, y1, x2, y2 = map(float, box)
            frame = [x1, y1, x2 - x1, y2 - y1]
            entry = {
                "id": len(objects) + 1,
                "image_id": image,
                "category_id": int(label),
                "bbox": frame,
            }
            objects.append({**entry, "area": frame[2] * frame[3], "iscrowd": int(crowd)})
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True):
            x1, y1, x2, y2 = map(float, box)
            entry = {
                "image_id": image,
                "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            found.append({**entry, "score": float(score)})
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {
            "images": [{"id": image} for image in range(1, len(samples) + 1)],
            "categories": [{"id": index, "name": name} for index, name in enumerate(NAMES)],
            "annotations": objects,
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return 100 * evaluator.stats[1], 100 * evaluator.stats[0]


def test_a_resample_is_what_pycocotools_says_of_the_repeated_images():
    samples, detections = random_dataset()
    table = WeightedAP(samples, detections, len(NAMES))
    rng = np.random.default_rng(1)
    for _ in range(6):
        drawn = np.sort(rng.integers(0, len(samples), len(samples)))
        weights = np.bincount(drawn, minlength=len(samples)).astype(np.float32)
        assert weights.max() > 1 and weights.min() == 0
        ap, ap50 = table.compute(weights[None])
        expected = slow_ap([samples[i] for i in drawn], [detections[i] for i in drawn])
        assert (ap50[0], ap[0]) == pytest.approx(expected, abs=1e-9)


def test_all_images_once_give_the_evaluators_ap():
    samples, detections = random_dataset(seed=2)
    metrics = evaluate(samples, detections, NAMES)
    ap, ap50 = WeightedAP(samples, detections, len(NAMES)).compute(
        np.ones((1, len(samples)), np.float32)
    )
    assert (ap50[0], ap[0]) == pytest.approx(
        (100 * metrics.map50, 100 * metrics.map50_95), abs=1e-9
    )


def test_images_without_detections_or_objects():
    samples, detections = random_dataset()
    nothing = [
        Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), NAMES, 9, 9
        )
    ] * 14
    weights = np.ones((1, 14), np.float32)
    assert WeightedAP(samples, nothing, len(NAMES)).compute(weights)[0][0] == 0
    empty = [Sample(sample.path, 100, 100) for sample in samples]
    assert np.isnan(WeightedAP(empty, detections, len(NAMES)).compute(weights)[0][0])


def test_the_bootstrap_knows_the_error_of_a_mean():
    """For a statistic that is a mean over images its standard error is known: s / sqrt(n)."""
    values = np.random.default_rng(0).normal(size=200)
    spread = bootstrap_images(lambda weights: (weights @ values)[None] / 200, 200, resamples=2000)
    assert spread.error[0] == pytest.approx(values.std() / np.sqrt(200), rel=0.06)
    assert spread.low[0] == pytest.approx(values.mean() - 1.96 * spread.error[0], abs=0.02)
    assert spread.high[0] == pytest.approx(values.mean() + 1.96 * spread.error[0], abs=0.02)


def test_the_same_images_are_drawn_for_both_settings_and_again():
    samples, detections = random_dataset()
    table = WeightedAP(samples, detections, len(NAMES))
    spread = bootstrap_images(
        lambda weights: np.stack([table.compute(weights)[0] - table.compute(weights)[0]]), 14, 50
    )
    assert spread.low[0] == spread.high[0] == spread.error[0] == 0
    first, again = (
        bootstrap_images(lambda weights: np.stack(table.compute(weights)), 14, 50) for _ in range(2)
    )
    assert np.array_equal(first.low, again.low) and first.error[0] > 0


def test_f1_of_an_image_by_hand():
    """A hit, a miss and a false detection: F1 = 2 * 1 / (2 + 2). Nothing at all: 1. A miss: 0."""
    truth = np.array([[0, 0, 20, 20], [50, 50, 80, 80]], np.float32)
    found = np.array([[0, 0, 20, 20], [0, 60, 20, 90]], np.float32)
    label, score, flag = np.zeros(2, int), np.array([0.9, 0.8], np.float32), np.zeros(2, bool)
    samples = [Sample(Path("0"), 100, 100, truth, label, flag, flag), Sample(Path("1"), 100, 100)]
    samples.append(Sample(Path("2"), 100, 100, truth, label, flag, flag))
    none = Detections(found[:0], score[:0], label[:0], NAMES, 100, 100)
    detections = [Detections(found, score, label, NAMES, 100, 100), none, none]
    assert image_f1(samples, detections).tolist() == [0.5, 1.0, 0.0]


def test_groups_are_drawn_whole():
    """Two groups of four equal images: the mean of a resample is 0, 1/2 or 1."""
    values = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])

    def mean(weights: np.ndarray) -> np.ndarray:
        means = weights @ values / weights.sum(1)
        assert set(np.round(means, 6)) <= {0.0, 0.5, 1.0}
        return means[None]

    groups = Groups("video_id", np.repeat([0, 1], 4))
    assert bootstrap_images(mean, 8, 200, groups).interval(0) == (0.0, 1.0)
