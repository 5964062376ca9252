"""NMS and box voting, image by image and by batch, against a plain greedy loop."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from nets.ops import nms as nms_module
from nets.ops.nms import RawDetections, non_max_suppression


def suppress_batch(
    boxes: Tensor,
    scores: Tensor,
    score: float,
    nms_iou: float,
    max_detections: int,
    vote_iou: float = 1.0,
) -> list[RawDetections]:
    """`non_max_suppression` as on a GPU, wherever the boxes are."""
    limits = nms_module._Limits(score, nms_iou, max_detections, vote_iou)
    return nms_module._suppress_batch(boxes, scores, limits)


@pytest.fixture(autouse=True, params=["image by image", "batch"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with both implementations: as on a CPU, and as on a GPU."""
    if request.param == "batch":
        monkeypatch.setitem(globals(), "non_max_suppression", suppress_batch)
    return request.param


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def greedy(
    boxes: Tensor, scores: Tensor, score: float, limit: float, most: int
) -> list[tuple[float, int, int]]:
    """(score, box index, class) of the detections, best first."""
    rows = boxes.tolist()
    values = [(float(scores[i, c]), i, c) for i, c in (scores > score).nonzero().tolist()]
    detections: list[tuple[float, int, int]] = []
    for value, index, label in sorted(values, reverse=True):
        if all(label != other or iou(rows[index], rows[i]) <= limit for _, i, other in detections):
            detections.append((value, index, label))
    return detections[:most]


def random_boxes(count: int, low: float = 0.0, high: float = 200.0) -> Tensor:
    corner = torch.rand(count, 2) * (high - low) + low
    return torch.cat([corner, corner + torch.rand(count, 2) * 60 + 5], 1)


def assert_equals_greedy(
    boxes: Tensor, scores: Tensor, score: float, limit: float, most: int
) -> None:
    ((got_boxes, got_scores, got_labels),) = non_max_suppression(
        boxes[None], scores[None], score, limit, most
    )
    expected = greedy(boxes, scores, score, limit, most)
    assert got_labels.tolist() == [label for _, _, label in expected]
    assert got_scores.tolist() == [value for value, _, _ in expected]
    assert torch.equal(got_boxes, boxes[[index for _, index, _ in expected]])
    assert got_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("score", "limit", "most"), [(0.1, 0.5, 1000), (0.5, 0.3, 1000), (0.01, 0.7, 7)]
)
def test_it_equals_greedy_nms_class_by_class(score: float, limit: float, most: int) -> None:
    assert_equals_greedy(random_boxes(60), torch.rand(60, 3), score, limit, most)


def one_hot_scores(*rows: tuple[int, float], classes: int) -> Tensor:
    scores = torch.zeros(len(rows), classes)
    for index, (label, score) in enumerate(rows):
        scores[index, label] = score
    return scores


def test_classes_stay_apart_for_negative_coordinates() -> None:
    boxes = torch.tensor([[80.0, 80, 101, 101], [-21, -21, 0, 0]])
    scores = one_hot_scores((0, 0.9), (1, 0.8), classes=2)
    assert_equals_greedy(boxes, scores, 0.05, 0.4, 10)
    assert len(non_max_suppression(boxes[None], scores[None], 0.05, 0.4, 10)[0][0]) == 2


def test_a_giant_box_leaves_the_others_their_precision() -> None:
    """An untrained network may predict sizes of millions of pixels beside sensible boxes."""
    boxes = torch.tensor([[2.0, 10, 8, 22], [2, 10, 8, 21], [-4e6, -4e6, 4e6, 4e6]])
    scores = one_hot_scores((50, 0.9), (50, 0.8), (3, 0.7), classes=60)
    assert_equals_greedy(boxes, scores, 0.05, 0.4, 10)
    assert len(non_max_suppression(boxes[None], scores[None], 0.05, 0.4, 10)[0][0]) == 2


def test_more_candidates_than_are_tried_first() -> None:
    assert_equals_greedy(random_boxes(40), torch.rand(40, 100), 0.01, 0.5, 25)


def test_few_detections_of_many_candidates_equal_greedy_nms() -> None:
    """A crowd leaves fewer detections than allowed: every candidate must have been considered."""
    crowd = torch.rand(1500, 2) * 30
    boxes = torch.cat(
        [torch.cat([crowd, crowd + 50 + torch.rand(1500, 2) * 20], 1), random_boxes(10, 300, 600)]
    )
    scores = torch.rand(1510, 1)
    scores[1500:] *= 0.01  # the isolated boxes come last
    assert_equals_greedy(boxes, scores, 0.0, 0.4, 100)


def test_many_candidates_go_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms_module, "CLASS_BY_CLASS", 50)
    scores = torch.rand(100, 5) * torch.tensor(
        [1.0, 0.0, 1.0, 0.0, 0.0]
    )  # three classes without candidates
    assert_equals_greedy(random_boxes(100), scores, 0.1, 0.3, 1000)


def test_no_candidates_give_empty_detections_and_images_are_separate() -> None:
    boxes = random_boxes(5).expand(2, 5, 4)
    scores = torch.zeros(2, 5, 3)
    scores[1, 2, 1] = 0.9
    nothing, single = non_max_suppression(boxes, scores, 0.5, 0.5, 10)
    assert [tuple(part.shape) for part in nothing] == [(0, 4), (0,), (0,)]
    assert single.labels.tolist() == [1] and torch.equal(single.boxes[0], boxes[1, 2])


@pytest.mark.parametrize(("classes", "rows"), [(1, 100), (2, 100), (1, 7), (9, 7), (9, 1)])
def test_voting_averages_the_boxes_of_its_class_that_overlap_enough(
    classes: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nms_module, "ROWS", rows)
    torch.manual_seed(3)
    boxes, scores = random_boxes(80), torch.rand(80, classes)
    ((got, values, labels),) = non_max_suppression(
        boxes[None], scores[None], 0.2, 0.5, 100, vote_iou=0.3
    )
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
    ((got, _, _),) = non_max_suppression(
        boxes[None], torch.tensor([[[0.9], [0.8]]]), 0.1, 0.5, 10, vote_iou=0.6
    )
    torch.testing.assert_close(got, boxes)


def test_boxes_beyond_the_largest_number_of_detections_vote() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    scores = torch.tensor([[[0.8], [0.5]]])
    ((got, _, _),) = non_max_suppression(boxes[None], scores, 0.1, 0.3, 1, vote_iou=0.2)
    share = 0.5 * 0.25**2
    expected = (0.8 * 4 + share * 1) / (0.8 + share)
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 1.0, expected]]))


def test_the_best_alone_have_a_vote_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms_module, "VOTERS", 3)
    offsets, values = [0.0, 1.0, 2.0, -3.0, 100.0], [0.9, 0.8, 0.7, 0.6, 0.5]
    boxes = torch.tensor([[x, 0.0, x + 10, 10.0] for x in offsets])
    ((got, scores, _),) = non_max_suppression(
        boxes[None], torch.tensor(values)[None, :, None], 0.1, 0.3, 10, vote_iou=0.3
    )
    weights = [v * iou(boxes[0].tolist(), boxes[i].tolist()) ** 2 for i, v in enumerate(values[:3])]
    moved = sum(w * x for w, x in zip(weights, offsets, strict=False)) / sum(weights)
    torch.testing.assert_close(
        got, torch.tensor([[moved, 0.0, moved + 10, 10.0], [100.0, 0.0, 110.0, 10.0]])
    )
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5]))


def test_a_batch_gives_the_detections_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images with many, few and no candidates; some need more than are tried first."""
    monkeypatch.setattr(nms_module, "VOTERS", 60)
    boxes = torch.stack(
        [random_boxes(200), random_boxes(200, high=30), random_boxes(200), random_boxes(200)]
    )
    scores = torch.rand(4, 200, 2) * torch.tensor([1.0, 1.0, 0.2, 0.01])[:, None, None]
    limits = (0.1, 0.4, 25, 0.5)
    batch = non_max_suppression(boxes, scores, *limits)
    for index, detections in enumerate(batch):
        (alone,) = nms_module.non_max_suppression(
            boxes[index : index + 1], scores[index : index + 1], *limits
        )
        for values, expected in zip(detections, alone, strict=True):
            torch.testing.assert_close(values, expected)
    assert [len(detections.labels) == 0 for detections in batch] == [False, False, False, True]


@pytest.mark.parametrize("count", [50, 1500])
def test_without_voting_it_equals_torchvision(count: int) -> None:
    boxes, scores = random_boxes(count), torch.rand(count, 3)
    (detections,) = non_max_suppression(boxes[None], scores[None], 0.3, 0.5, 100)
    index, labels = (scores > 0.3).nonzero(as_tuple=True)
    keep = batched_nms(boxes[index], scores[index, labels], labels, 0.5)[:100]
    assert torch.equal(detections.boxes, boxes[index[keep]])
    assert torch.equal(detections.scores, scores[index, labels][keep])
    assert torch.equal(detections.labels, labels[keep])
