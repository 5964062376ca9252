"""NMS and box voting, image by image and all images together, against a plain greedy loop."""

import pytest
import torch
from torch import Tensor

from nets.ops import nms as batched
from nets.ops import nms_numpy as single
from nets.ops.nms import Found, select, select_together
from nets.ops.nms_numpy import Limits, select_one


@pytest.fixture(autouse=True, params=["one by one", "together"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs both ways: as on a CPU, and as on a GPU."""
    if request.param == "together":

        def together(
            boxes: Tensor, scores: Tensor, *limits: float, vote_iou: float = 1.0
        ) -> list[Found]:
            return select_together(boxes, scores, Limits(*limits, vote_iou))

        monkeypatch.setitem(globals(), "select", together)
    return request.param


def iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy(
    boxes: Tensor, scores: Tensor, score: float, limit: float, most: int
) -> list[tuple[float, int, int]]:
    """(score, box index, class) of what stays, best first."""
    rows = boxes.tolist()
    values = [
        (s, i, c) for i, row in enumerate(scores.tolist()) for c, s in enumerate(row) if s > score
    ]
    kept: list[tuple[float, int, int]] = []
    for value, index, label in sorted(values, reverse=True):
        if all(label != other or iou(rows[index], rows[i]) <= limit for _, i, other in kept):
            kept.append((value, index, label))
    return kept[:most]


def random_boxes(count: int, low: float = 0.0, high: float = 200.0) -> Tensor:
    corner = torch.rand(count, 2) * (high - low) + low
    return torch.cat([corner, corner + torch.rand(count, 2) * 60 + 5], 1)


def assert_equals_greedy(
    boxes: Tensor, scores: Tensor, score: float, limit: float, most: int
) -> None:
    ((got_boxes, got_scores, got_labels),) = select(boxes[None], scores[None], score, limit, most)
    expected = greedy(boxes, scores, score, limit, most)
    assert got_labels.tolist() == [label for _, _, label in expected]
    assert got_scores.tolist() == [value for value, _, _ in expected]
    assert torch.equal(got_boxes, boxes[[index for _, index, _ in expected]])
    assert got_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("score", "limit", "most"), [(0.1, 0.5, 1000), (0.5, 0.3, 1000), (0.01, 0.7, 7)]
)
def test_select_equals_greedy_nms_class_by_class(score: float, limit: float, most: int) -> None:
    assert_equals_greedy(random_boxes(60), torch.rand(60, 3), score, limit, most)


def one_hot_scores(*rows: tuple[int, float], classes: int) -> Tensor:
    scores = torch.zeros(len(rows), classes)
    for index, (label, score) in enumerate(rows):
        scores[index, label] = score
    return scores


def test_boxes_over_the_upper_left_corner_do_not_suppress_those_of_another_class() -> None:
    """Classes must be kept apart for coordinates below zero, too."""
    boxes = torch.tensor([[80.0, 80, 101, 101], [-21, -21, 0, 0]])
    scores = one_hot_scores((0, 0.9), (1, 0.8), classes=2)
    assert_equals_greedy(boxes, scores, 0.05, 0.4, 10)
    assert len(select(boxes[None], scores[None], 0.05, 0.4, 10)[0][0]) == 2


def test_a_giant_box_leaves_the_others_their_precision() -> None:
    """An untrained network may predict sizes of millions of pixels beside sensible boxes."""
    boxes = torch.tensor([[2.0, 10, 8, 22], [2, 10, 8, 21], [-4e6, -4e6, 4e6, 4e6]])
    scores = one_hot_scores((50, 0.9), (50, 0.8), (3, 0.7), classes=60)
    assert_equals_greedy(boxes, scores, 0.05, 0.4, 10)
    assert len(select(boxes[None], scores[None], 0.05, 0.4, 10)[0][0]) == 2


def test_the_best_survive_when_there_are_more_candidates_than_nms_takes() -> None:
    assert_equals_greedy(random_boxes(40), torch.rand(40, 100), 0.01, 0.5, 25)


def test_few_kept_of_many_candidates_equal_greedy_nms() -> None:
    """A crowd in one place keeps fewer boxes than asked for: every candidate must have had its turn."""
    crowd = torch.rand(1500, 2) * 30
    boxes = torch.cat(
        [torch.cat([crowd, crowd + 50 + torch.rand(1500, 2) * 20], 1), random_boxes(10, 300, 600)]
    )
    scores = torch.rand(1510, 1)
    scores[1500:] *= 0.01  # the lone ones come last
    assert_equals_greedy(boxes, scores, 0.0, 0.4, 100)


def test_many_candidates_are_taken_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "MANY", 50)
    scores = torch.rand(100, 5) * torch.tensor(
        [1.0, 0.0, 1.0, 0.0, 0.0]
    )  # classes that nothing is found of
    assert_equals_greedy(random_boxes(100), scores, 0.1, 0.3, 1000)


def test_nothing_found_gives_empty_results_and_pictures_are_apart() -> None:
    boxes = random_boxes(5).expand(2, 5, 4)
    scores = torch.zeros(2, 5, 3)
    scores[1, 2, 1] = 0.9
    nothing, one = select(boxes, scores, 0.5, 0.5, 10)
    assert [tuple(part.shape) for part in nothing] == [(0, 4), (0,), (0,)]
    assert one[2].tolist() == [1] and torch.equal(one[0][0], boxes[1, 2])


@pytest.mark.parametrize(("classes", "rows"), [(1, 100), (2, 100), (1, 7), (9, 7), (9, 1)])
def test_voting_averages_the_boxes_of_its_class_that_overlap_enough(
    classes: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "ROWS", rows)
    torch.manual_seed(3)
    boxes, scores = random_boxes(80), torch.rand(80, classes)
    ((got, values, labels),) = select(boxes[None], scores[None], 0.2, 0.5, 100, vote_iou=0.3)
    rows = boxes.tolist()
    expected = []
    for value, index, label in greedy(boxes, scores, 0.2, 0.5, 100):
        total, weights = [0.0] * 4, 0.0
        for other, row in enumerate(rows):
            overlap, score = iou(rows[index], row), float(scores[other, label])
            if score > 0.2 and overlap > 0.3:
                weights += score * overlap**2
                total = [t + score * overlap**2 * side for t, side in zip(total, row, strict=True)]
        expected.append([t / weights for t in total])
        assert value == float(scores[index, label])
    assert len(labels) == len(values) == len(expected)
    assert (
        got - boxes[[i for _, i, _ in greedy(boxes, scores, 0.2, 0.5, 100)]]
    ).abs().max() > 1  # it moves boxes
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_voting_leaves_an_empty_box_and_a_lone_one_where_they_are() -> None:
    boxes = torch.tensor([[10.0, 10.0, 10.0, 30.0], [100.0, 100.0, 150.0, 140.0]])
    ((got, _, _),) = select(boxes[None], torch.tensor([[[0.9], [0.8]]]), 0.1, 0.5, 10, vote_iou=0.6)
    torch.testing.assert_close(got, boxes)


def test_the_best_alone_have_a_vote_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batched, single):
        monkeypatch.setattr(module, "VOTERS", 3)
    offsets, values = [0.0, 1.0, 2.0, -3.0, 100.0], [0.9, 0.8, 0.7, 0.6, 0.5]
    boxes = torch.tensor([[x, 0.0, x + 10, 10.0] for x in offsets])
    ((got, scores, _),) = select(
        boxes[None], torch.tensor(values)[None, :, None], 0.1, 0.3, 10, vote_iou=0.3
    )
    weights = [v * iou(boxes[0].tolist(), boxes[i].tolist()) ** 2 for i, v in enumerate(values[:3])]
    moved = sum(w * x for w, x in zip(weights, offsets, strict=False)) / sum(weights)
    torch.testing.assert_close(
        got, torch.tensor([[moved, 0.0, moved + 10, 10.0], [100.0, 0.0, 110.0, 10.0]])
    )
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5]))


def test_a_batch_is_what_its_pictures_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of many, few and no candidates, in one batch: some need more than the best that are tried first."""
    for module in (batched, single):
        monkeypatch.setattr(module, "VOTERS", 60)
    boxes = torch.stack(
        [random_boxes(200), random_boxes(200, high=30), random_boxes(200), random_boxes(200)]
    )
    scores = torch.rand(4, 200, 2) * torch.tensor([1.0, 1.0, 0.2, 0.01])[:, None, None]
    together = select(boxes, scores, 0.1, 0.4, 25, vote_iou=0.5)
    for index, found in enumerate(together):
        alone = select_one(boxes[index].numpy(), scores[index].numpy(), Limits(0.1, 0.4, 25, 0.5))
        for mine, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(mine, torch.from_numpy(expected))
    assert [len(labels) == 0 for _, _, labels in together] == [False, False, False, True]
