"""Both ways to compute the metrics, which are timed beside one another, give the same AP."""

import pytest

from utils.benchmark.evaluation import coco_precision, coco_rows, coco_truth, synthetic_set
from utils.metrics import evaluate


def test_both_sides_compute_the_same():
    samples, detections = synthetic_set(20)
    expected = coco_precision(coco_truth(samples), coco_rows(detections))
    assert 0.05 < expected < 0.95
    metrics = evaluate(samples, detections, detections[0].names)
    assert metrics.map50_95 == pytest.approx(expected, abs=1e-6)
