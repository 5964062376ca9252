"""What the metrics are timed against gives the same AP."""

import pytest

from utils.benchmark.evaluation import (
    CLASSES,
    coco_precision,
    coco_results,
    coco_truth,
    synthetic_set,
)
from utils.metrics import evaluate


def test_both_sides_compute_the_same():
    samples, found = synthetic_set(20)
    assert len(samples) == len(found) == 20 and all(len(one) == 30 for one in found)
    expected = coco_precision(coco_truth(samples), coco_results(found))
    assert 0.05 < expected < 0.95
    assert evaluate(samples, found, found[0].names).map50_95 == pytest.approx(expected, abs=1e-6)
    assert len(found[0].names) == CLASSES
