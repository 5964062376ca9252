"""The evaluator on cases worked out by hand, and its JSON and table."""

import json
from pathlib import Path

import numpy as np
import pytest

from nets.inference.detections import Detections
from utils.data.sample import Sample
from utils.metrics import Metrics, evaluate

NAMES = ("cat", "dog", "bird", "absent")


def sample(boxes, labels, difficult=(), crowd=()) -> Sample:
    count = len(labels)
    hard, region = (np.isin(np.arange(count), list(items)) for items in (difficult, crowd))
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Sample(Path("a.jpg"), 640, 480, boxes, np.asarray(labels, np.int64), hard, region)


def detections_of(boxes, scores, labels, names=NAMES) -> Detections:
    scores, labels = np.asarray(scores, np.float32), np.asarray(labels, np.int64)
    order = np.argsort(-scores, kind="stable")
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[order]
    return Detections(boxes, scores[order], labels[order], tuple(names), 640, 480)


A, B, C, FAR = [0, 0, 100, 100], [200, 0, 300, 100], [200, 200, 300, 300], [500, 300, 540, 340]


def test_three_objects_four_detections_by_hand():
    """Scores 0.9 hit A, 0.8 miss, 0.7 hit B, 0.6 A again; C is never found.

    After each: recall 1/3, 1/3, 2/3, 2/3; precision 1, 1/2, 2/3, 1/2.
    Area: 1/3 * 1 + 1/3 * 2/3 = 5/9.
    11 points: recall 0..0.3 -> 1 (4 times), 0.4..0.6 -> 2/3 (3 times), rest 0: (4 + 2) / 11.
    101 points (COCO): 0..0.33 -> 1 (34 times), 0.34..0.66 -> 2/3 (33 times): (34 + 22) / 101.
    F1 = 2 TP / (detections + objects): 2/4, 2/5, 4/6, 4/7; the best is 2/3 at score 0.7.
    """
    metrics = evaluate(
        [sample([A, B, C], [0, 0, 0])],
        [detections_of([A, FAR, B, A], [0.9, 0.8, 0.7, 0.6], [0] * 4)],
        NAMES,
    )
    item = metrics.per_class["cat"]
    assert item.voc_ap50 == pytest.approx(5 / 9)
    assert item.voc_ap50_11point == pytest.approx(6 / 11)
    assert item.ap50 == item.ap50_95 == pytest.approx(56 / 101)
    assert (item.best_f1, item.best_score) == pytest.approx((2 / 3, 0.7))
    assert (metrics.best_f1, metrics.best_score) == pytest.approx((2 / 3, 0.7))
    assert (item.images, item.objects) == (1, 3)
    assert (
        metrics.map50 == item.ap50 and metrics.voc_ap50 == item.voc_ap50
    )  # absent classes are not zeros


def test_a_recall_of_exactly_three_tenths_reaches_the_point():
    boxes = [[100 * k, 0, 100 * k + 50, 50] for k in range(10)]
    metrics = evaluate(
        [sample(boxes, [0] * 10)], [detections_of(boxes[:3], [0.9, 0.8, 0.7], [0] * 3)], NAMES
    )
    assert metrics.voc_ap50_11point == pytest.approx(4 / 11)  # 0, 0.1, 0.2, 0.3


def test_detections_need_not_come_sorted():
    given = Detections(
        np.array([A, A], np.float32),
        np.array([0.2, 0.9], np.float32),
        np.zeros(2, int),
        NAMES,
        640,
        480,
    )
    metrics = evaluate([sample([A], [0])], [given], NAMES)
    assert (metrics.map50, metrics.voc_ap50) == pytest.approx(
        (1, 1)
    )  # the box of 0.9 is the hit, that of 0.2 too many


def test_voc_gives_the_second_match_to_nobody_while_coco_tries_the_next_object():
    # two objects with IoU 90 / 110 = 0.82 between them; both detections lie exactly on the first
    near = [10, 0, 110, 100]
    metrics = evaluate(
        [sample([A, near], [0, 0])], [detections_of([A, A], [0.9, 0.8], [0, 0])], NAMES
    )
    assert metrics.per_class["cat"].ap50 == pytest.approx(1)
    assert metrics.per_class["cat"].voc_ap50 == pytest.approx(0.5)


def test_difficult_counts_for_coco_only():
    truth = sample([A, B], [0, 0], difficult=[1])
    both = evaluate([truth], [detections_of([B, A], [0.9, 0.8], [0, 0])], NAMES)
    assert both.per_class["cat"].voc_ap50 == pytest.approx(1)  # B first, neither hit nor miss
    missed = evaluate([truth], [detections_of([A], [0.8], [0])], NAMES)
    assert missed.per_class["cat"].voc_ap50 == pytest.approx(1)
    assert missed.per_class["cat"].ap50 == pytest.approx(51 / 101)  # recall 1/2
    assert missed.per_class["cat"].objects == 2


def test_detections_inside_a_crowd_are_no_errors():
    inside = [[10, 10, 40, 40], [50, 50, 80, 80]]  # IoU with the crowd is 0.09, but they lie in it
    detections = [detections_of([*inside, B], [0.9, 0.8, 0.7], [0, 0, 0])]
    metrics = evaluate([sample([A, B], [0, 0], crowd=[0])], detections, NAMES)
    item = metrics.per_class["cat"]
    assert (item.ap50, item.voc_ap50, item.best_f1, item.objects) == pytest.approx((1, 1, 1, 1))
    assert metrics.confusion.sum() == metrics.confusion[0, 0] == 1
    without = evaluate([sample([B], [0])], detections, NAMES)
    assert (without.map50, without.voc_ap50) == pytest.approx((1 / 3, 1 / 3))
    assert metrics.best_f1 == pytest.approx(1)
    over = evaluate(
        [sample([B, [150, 0, 350, 200]], [0, 0], crowd=[1])],
        [detections_of([[200, 0, 300, 90]], [0.7], [0])],
        NAMES,
    )
    assert over.per_class["cat"].voc_ap50 == 1  # an object inside a crowd is still found


def test_confusion_matrix_by_hand():
    """Cat A is detected as dog (0.9); a second, worse box on it (cat, 0.8) is background -> cat.

    Dog B is detected. Bird C is missed: its only box scores 0.2 < 0.25. FAR has no object but is
    detected as bird. The difficult dog in the corner and the box on it are left out.
    """
    corner = [400, 400, 450, 450]
    truth = sample([A, B, C, corner], [0, 1, 2, 1], difficult=[3])
    shifted = [20, 0, 120, 100]
    boxes = [A, shifted, B, C, FAR, corner]
    detections = detections_of(boxes, [0.9, 0.8, 0.7, 0.2, 0.6, 0.5], [1, 0, 1, 2, 2, 0])
    expected = np.zeros((5, 5), np.int64)
    expected[0, 1] = expected[4, 0] = expected[1, 1] = expected[2, 4] = expected[4, 2] = 1
    np.testing.assert_array_equal(evaluate([truth], [detections], NAMES).confusion, expected)


def test_confusion_matches_by_overlap_not_by_score():
    truth = sample([A], [0])
    detections = detections_of([[20, 0, 120, 100], A], [0.9, 0.3], [1, 0])
    matrix = evaluate([truth], [detections], NAMES).confusion
    assert matrix[0, 0] == matrix[4, 1] == 1 and matrix.sum() == 2


def test_confusion_gives_a_detection_to_one_object_only():
    matrix = evaluate(
        [sample([A, [10, 0, 110, 100]], [0, 1])], [detections_of([A], [0.9], [0])], NAMES
    ).confusion
    assert matrix[0, 0] == matrix[1, 4] == 1 and matrix.sum() == 2


def test_images_do_not_mix():
    metrics = evaluate(
        [sample([A], [0]), sample([B], [0])],
        [detections_of([B], [0.9], [0]), detections_of([A], [0.8], [0])],
        NAMES,
    )
    assert metrics.map50 == metrics.voc_ap50 == metrics.best_f1 == 0
    assert metrics.confusion[0, 4] == metrics.confusion[4, 0] == 2


def test_equal_scores_share_one_threshold():
    # a threshold cannot take the hit without the misses of the same score: F1 = 2 * 1 / (3 + 1)
    metrics = evaluate(
        [sample([A], [0])], [detections_of([A, FAR, C], [0.5, 0.5, 0.5], [0, 0, 0])], NAMES
    )
    assert metrics.best_f1 == pytest.approx(0.5)


EMPTY = detections_of([], [], [])


def test_empty_cases():
    for count in (0, 1):
        metrics = evaluate([sample([], [])] * count, [EMPTY] * count, NAMES)
        assert metrics.images == count
        assert np.isnan(
            [metrics.map50, metrics.map50_95, metrics.voc_ap50, metrics.ar100, metrics.best_f1]
        ).all()
        assert metrics.to_json()["map50"] is None
        assert not metrics.confusion.any()
    blind = evaluate([sample([A], [0])], [EMPTY], NAMES)
    assert (
        blind.map50 == blind.voc_ap50 == blind.voc_ap50_11point == blind.ar100 == blind.best_f1 == 0
    )
    assert blind.confusion[0, 4] == 1
    no_object = evaluate([sample([], [])], [detections_of([A], [0.9], [0])], NAMES)
    assert np.isnan(no_object.map50) and np.isnan(no_object.voc_ap50)
    assert no_object.confusion[4, 0] == 1
    assert evaluate([sample([], [])], [EMPTY], ()).confusion.shape == (1, 1)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="1 samples, but detections of 2"):
        evaluate([sample([A], [0])], [EMPTY, EMPTY], NAMES)
    with pytest.raises(ValueError, match="detection labels 4 to 4"):
        evaluate([sample([A], [0])], [detections_of([A], [0.9], [4])], NAMES)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    truth = sample([A, B, C], [0, 1, 2])
    return evaluate(
        [truth, truth], [detections_of([A, FAR, B], [0.9, 0.8, 0.7], [0, 1, 1]), EMPTY], NAMES
    )


def test_json_is_plain_and_complete(metrics):
    plain = metrics.to_json()
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again == plain
    assert {
        "map50",
        "map50_95",
        "map75",
        "voc_ap50",
        "voc_ap50_11point",
        "per_class",
        "images",
    } <= plain.keys()
    assert plain["per_class"].keys() == set(NAMES)
    assert {"ap50", "ap50_95", "voc_ap50", "images", "objects"} <= plain["per_class"]["dog"].keys()
    assert plain["map50"] == pytest.approx(metrics.map50, abs=5e-7)
    assert (
        plain["per_class"]["absent"]["ap50"] is None
        and plain["per_class"]["absent"]["objects"] == 0
    )


def test_table_is_aligned_and_ends_with_the_mean(metrics):
    lines = metrics.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split()[0] for line in lines if not line.startswith("-")] == [
        "class",
        *NAMES,
        "mean",
    ]
    assert lines[-1].split()[3] == f"{100 * metrics.map50:.1f}"
    assert lines[5].split()[1:] == ["0", "0", "-", "-", "-"]
