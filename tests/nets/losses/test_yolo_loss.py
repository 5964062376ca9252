"""The loss against a slow version with loops; finite whatever the targets are."""

import math
import pickle

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss

import nets.losses.yolo_loss
from nets.losses.assigner import find_candidates
from nets.losses.yolo_loss import YoloLoss, weights_of_classes
from nets.yolo.box_coder import BoxCoder, flatten_maps
from utils.core.errors import UserError
from utils.core.schema import LossConfig

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0), (135.0, 169.0), (344.0, 319.0))
MASKS = ((3, 4, 5), (0, 1, 2))
SHAPES = [(3, 4), (6, 8)]  # an image 96 high and 128 wide
CLASSES = 3
PARTS = ("loss", "box", "objectness", "cls")
RULES = ["best", "iou", "ratio", "aligned"]

BOXES = torch.tensor(
    [
        [[10.0, 10, 34, 40], [20, 12, 44, 42], [60, 30, 120, 90]],
        [[3, 50, 90, 80], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
)
LABELS = torch.tensor([[0, 2, 1], [1, -1, -1]])


def random_maps(batch: int = 2, spread: float = 1.0) -> list[Tensor]:
    return [
        (torch.randn(batch, 3 * (5 + CLASSES), *shape) * spread).requires_grad_()
        for shape in SHAPES
    ]


def criterion(new_coords: bool = True, anchors=ANCHORS, **options: object) -> YoloLoss:
    return YoloLoss(BoxCoder(anchors, MASKS, new_coords), LossConfig(**options))


def bce(logit: float, target: float) -> float:
    return max(logit, 0) - logit * target + math.log1p(math.exp(-abs(logit)))


def slow_loss(
    loss: YoloLoss, maps: list[Tensor], boxes: Tensor, labels: Tensor
) -> dict[str, float]:
    config, raw = loss.config, flatten_maps(maps).detach()
    predicted, _ = loss.coder(maps)
    candidates = find_candidates(boxes, labels >= 0, SHAPES, loss.coder, config)
    triples = [
        (b, m, int(candidates.index[b, m, k])) for b, m, k in candidates.valid.nonzero().tolist()
    ]
    overlap = {
        t: box_iou(predicted[t[0], t[2]][None], boxes[t[0], t[1]][None]).item() for t in triples
    }
    if config.assign == "aligned":
        chosen = []
        for pair in {t[:2] for t in triples}:
            of_object = [t for t in triples if t[:2] == pair]

            def rank(t: tuple[int, int, int]) -> float:
                return (
                    raw[t[0], t[2], 5 + int(labels[t[0], t[1]])].sigmoid().item() * overlap[t] ** 6
                )

            chosen += sorted(of_object, key=rank, reverse=True)[: config.top_k]
        triples = chosen
    box = cls = 0.0
    target = torch.zeros(raw.shape[:2])
    for b, m, index in triples:
        box += complete_box_iou_loss(predicted[b, index], boxes[b, m]).item()
        target[b, index] = max(target[b, index].item(), overlap[b, m, index])
        for c in range(CLASSES):
            wanted = (1 - config.label_smoothing) * (
                c == labels[b, m].item()
            ) + config.label_smoothing / CLASSES
            weight = 1.0 if loss.class_weights is None else loss.class_weights[labels[b, m]].item()
            cls += weight * bce(raw[b, index, 5 + c].item(), wanted)
    objectness = sum(
        bce(raw[b, i, 4].item(), target[b, i].item())
        for b in range(raw.shape[0])
        for i in range(raw.shape[1])
    )
    count = max(1, len(triples))
    parts = {
        "box": config.box * box / count,
        "objectness": config.objectness * objectness / count,
        "cls": config.cls * cls / count,
    }
    return {"loss": sum(parts.values()), **parts}


@pytest.mark.parametrize("assign", RULES)
@pytest.mark.parametrize("new_coords", [True, False])
def test_loss_equals_loops(assign: str, new_coords: bool) -> None:
    loss = criterion(new_coords, assign=assign, label_smoothing=0.1, top_k=3, box=3.0, cls=0.7)
    maps = random_maps()
    got = loss(maps, BOXES, LABELS)
    assert {name: got[name].item() for name in PARTS} == pytest.approx(
        slow_loss(loss, maps, BOXES, LABELS), rel=1e-4
    )


def test_weights_of_classes_equal_loops() -> None:
    loss = criterion(cls=0.7)
    loss.class_weights = torch.tensor([0.5, 3.0, 1.0])
    maps = random_maps()
    got = loss(maps, BOXES, LABELS)
    assert {name: got[name].item() for name in PARTS} == pytest.approx(
        slow_loss(loss, maps, BOXES, LABELS), rel=1e-4
    )


def test_balanced_weights_are_inverse_to_the_objects_of_a_class() -> None:
    cpu = torch.device("cpu")
    assert weights_of_classes("none", [5, 1], cpu) is None
    balanced = weights_of_classes("balanced", [60, 30, 0, 10], cpu)
    # n / (classes * n_c), as scikit-learn's compute_class_weight("balanced", ...)
    assert balanced is not None and balanced.tolist() == pytest.approx([5 / 9, 10 / 9, 1, 10 / 3])
    given = weights_of_classes([1.0, 2.5], [60, 30], cpu)
    assert given is not None and given.tolist() == [1.0, 2.5]
    with pytest.raises(UserError, match=r"loss.class_weights: expected 2 numbers, .* got 3"):
        weights_of_classes([1.0, 1.0, 1.0], [60, 30], cpu)


@pytest.mark.parametrize("assign", RULES)
def test_the_padded_path_of_a_gpu_gives_the_same_loss_and_gradients(
    assign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU every candidate has a weight of 0 or 1; on a CPU only valid ones are matched."""
    loss, maps = criterion(assign=assign, top_k=3), random_maps()
    compact = loss(maps, BOXES, LABELS)
    compact_gradients = torch.autograd.grad(compact["loss"], maps)
    monkeypatch.setattr(
        nets.losses.yolo_loss,
        "_match_positions",
        lambda valid: torch.unravel_index(torch.arange(valid.numel()), valid.shape),
    )
    padded = loss(maps, BOXES, LABELS)
    for name in PARTS:
        torch.testing.assert_close(padded[name], compact[name], atol=1e-6, rtol=1e-5)
    padded_gradients = torch.autograd.grad(padded["loss"], maps)
    torch.testing.assert_close(padded_gradients, compact_gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("assign", RULES)
def test_the_loss_on_a_gpu_equals_that_on_the_cpu(assign: str) -> None:
    loss, maps = criterion(assign=assign, top_k=3), random_maps()
    on_cpu = loss(maps, BOXES, LABELS)
    on_gpu = loss.cuda()([m.cuda() for m in maps], BOXES.cuda(), LABELS.cuda())
    for name in PARTS:
        torch.testing.assert_close(on_gpu[name].cpu(), on_cpu[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("assign", RULES)
def test_padding_objects_change_nothing(assign: str) -> None:
    loss, maps = criterion(assign=assign), random_maps()
    junk = torch.tensor([[1.0, 2, 60, 70]]).expand(2, 4, 4)
    padded = loss(maps, torch.cat([BOXES, junk], 1), torch.cat([LABELS, torch.full((2, 4), -1)], 1))
    for name, value in loss(maps, BOXES, LABELS).items():
        assert torch.equal(padded[name], value), name


HARD = {
    "no objects": ([[0.0, 0, 0, 0]], [-1]),
    "one pixel": ([[50.0, 50, 51, 51]], [0]),
    "a point": ([[50.0, 50, 50, 50]], [0]),
    "a line": ([[0.0, 50, 128, 50]], [0]),
    "at the far border": ([[127.0, 95, 128, 96], [128, 96, 128, 96]], [0, 1]),
    "at the near border": ([[0.0, 0, 1, 1], [-3, -3, 1, 1]], [0, 1]),
    "the whole image": ([[0.0, 0, 128, 96]], [2]),
    "duplicates": ([[10.0, 10, 40, 40]] * 3, [0, 0, 1]),
    "far outside": ([[500.0, 500, 600, 600]], [0]),
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("assign", ["best", "ratio", "aligned"])
def test_hard_targets_give_finite_losses_and_gradients(case: str, assign: str) -> None:
    rows, classes = HARD[case]
    boxes, labels = (
        torch.tensor([rows, rows]),
        torch.tensor([classes, [-1] * len(classes)]),
    )  # the second is empty
    for new_coords in (True, False):
        for spread in (1.0, 50.0, 1e4):
            maps = random_maps(spread=spread)
            parts = criterion(new_coords, assign=assign)(maps, boxes, labels)
            gradients = torch.autograd.grad(parts["loss"], maps)
            assert all(parts[name].isfinite() for name in PARTS), (new_coords, spread)
            assert all(gradient.isfinite().all() for gradient in gradients), (new_coords, spread)


@pytest.mark.parametrize("anchors", [((1.0, 1.0),) * 6, ((5e3, 1.0),) * 6, ((1e4, 1e4),) * 6])
def test_anchors_that_do_not_fit_keep_the_loss_finite(anchors: tuple) -> None:
    maps = random_maps(spread=20.0)
    parts = criterion(anchors=anchors)(maps, BOXES, LABELS)
    assert parts["box"] > 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(parts["loss"], maps))


def test_no_objects_at_all_only_push_objectness_down() -> None:
    maps = random_maps()
    parts = criterion()(maps, torch.zeros(2, 1, 4), torch.full((2, 1), -1))
    assert parts["box"] == parts["cls"] == 0 < parts["objectness"]
    gradient = flatten_maps(torch.autograd.grad(parts["loss"], maps))
    assert (gradient[..., 4] > 0).all()
    assert gradient[..., :4].abs().max() == gradient[..., 5:].abs().max() == 0


@pytest.mark.parametrize("assign", RULES)
@pytest.mark.parametrize("new_coords", [True, False])
def test_descent_on_one_batch_reaches_the_targets(assign: str, new_coords: bool) -> None:
    loss = criterion(new_coords, assign=assign)
    maps = random_maps(spread=0.1)
    optimizer = torch.optim.Adam(maps, 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(maps, BOXES, LABELS)["loss"].backward()
        optimizer.step()
    boxes, scores = loss.coder(maps)
    for b, m in (LABELS >= 0).nonzero().tolist():
        score, index = (
            scores[b, :, LABELS[b, m]] * (box_iou(boxes[b], BOXES[b, m][None])[:, 0] > 0.9)
        ).max(0)
        assert score > 0.7, (b, m)
        assert scores[b, index].argmax() == LABELS[b, m]
    unmatched = torch.ones(scores.shape[:2], dtype=torch.bool)
    candidates = find_candidates(BOXES, LABELS >= 0, SHAPES, loss.coder, loss.config)
    image = torch.arange(2)[:, None, None].expand_as(candidates.index)
    unmatched[image[candidates.valid], candidates.index[candidates.valid]] = False
    assert scores[unmatched].max() < 0.2


def test_a_loss_can_be_pickled_and_moved() -> None:
    coder = BoxCoder([(10, 14)] * 6, ((3, 4, 5), (0, 1, 2)))
    loss = YoloLoss(coder, LossConfig(), class_weights=torch.tensor([1.0, 2.0]))
    loaded = pickle.loads(pickle.dumps(loss))
    assert torch.equal(loaded.class_weights, loss.class_weights)
    assert loss.to("meta").class_weights.is_meta and not loss.state_dict()
