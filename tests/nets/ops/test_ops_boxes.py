"""IoU of NumPy arrays and tensors against torchvision and plain arithmetic."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss

from nets.ops.boxes import complete_iou, coordinates_first, intersection, pairwise_iou, shape_iou


def random_boxes(*shape: int) -> Tensor:
    corner = torch.rand(*shape, 2) * 50
    return torch.cat([corner, corner + torch.rand(*shape, 2) * 60 + 1], -1)


def test_pairwise_iou_equals_torchvision_for_arrays_and_tensors() -> None:
    first, second = random_boxes(30), random_boxes(40)
    expected = box_iou(first, second)
    torch.testing.assert_close(pairwise_iou(first, second), expected)
    assert np.array_equal(
        pairwise_iou(first.numpy(), second.numpy()), pairwise_iou(first, second).numpy()
    )


def test_pairwise_iou_takes_batches() -> None:
    first, second = random_boxes(3, 5), random_boxes(3, 7)
    overlap = pairwise_iou(first, second)
    assert overlap.shape == (3, 5, 7)
    for image in range(3):
        assert torch.equal(overlap[image], pairwise_iou(first[image], second[image]))
    assert np.array_equal(pairwise_iou(first.numpy(), second.numpy()), overlap.numpy())


def test_empty_boxes_overlap_nothing() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 9], [9, 9, 5, 5], [0, 0, 10, 10]])
    expected = torch.zeros(4, 4)
    expected[3, 3] = 1
    assert torch.equal(pairwise_iou(boxes, boxes), expected)
    assert np.array_equal(pairwise_iou(boxes.numpy(), boxes.numpy()), expected.numpy())


def test_the_inputs_are_not_modified() -> None:
    boxes = random_boxes(6)
    before = boxes.clone()
    pairwise_iou(boxes, boxes)
    pairwise_iou(boxes.numpy(), boxes.numpy())
    assert torch.equal(boxes, before)


def test_intersection_of_integer_boxes() -> None:
    boxes = coordinates_first(np.array([[0, 0, 10, 10], [5, 8, 20, 20], [10, 0, 12, 10]]))
    assert intersection(boxes[:, :, None], boxes).tolist() == [
        [100, 10, 0],
        [10, 180, 4],
        [0, 4, 20],
    ]


def test_shape_iou_by_hand() -> None:
    shapes = np.array([(10.0, 10.0), (20.0, 5.0), (100.0, 3.0)])
    anchors = np.array([(10.0, 20.0), (24.0, 12.0)])
    expected = [[100 / 200, 100 / 288], [50 / 250, 100 / 288], [30 / 470, 72 / 516]]
    np.testing.assert_allclose(shape_iou(shapes[:, None], anchors), expected)
    result = shape_iou(torch.tensor(shapes)[:, None], torch.tensor(anchors))
    np.testing.assert_allclose(result.numpy(), expected)


def test_iou_and_ciou_equal_torchvision() -> None:
    boxes = random_boxes(200)
    targets = boxes.roll(1, 0) * torch.rand(200, 1).add(0.5)
    overlap, ciou = complete_iou(boxes, targets)
    torch.testing.assert_close(overlap, box_iou(boxes, targets).diagonal(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        1 - ciou, complete_box_iou_loss(boxes, targets), atol=1e-5, rtol=1e-5
    )


def test_ciou_gradient_equals_torchvision() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 30, 9], [40, 40, 50, 50]], requires_grad=True)
    targets = torch.tensor([[2.0, 1, 13, 17], [5, 6, 28, 11], [10, 10, 20, 30]])
    (ours,) = torch.autograd.grad((1 - complete_iou(boxes, targets)[1]).sum(), boxes)
    (reference,) = torch.autograd.grad(
        complete_box_iou_loss(boxes, targets, reduction="sum"), boxes
    )
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_ciou_of_empty_and_of_equal_boxes() -> None:
    point = torch.tensor([[5.0, 5, 5, 5]], requires_grad=True)
    overlap, ciou = complete_iou(point, point.detach())
    (gradient,) = torch.autograd.grad(ciou.sum(), point)
    assert overlap.isfinite().all() and ciou.isfinite().all() and gradient.isfinite().all()
    same = torch.tensor([[1.0, 2, 30, 40]])
    overlap, ciou = complete_iou(same, same)
    assert overlap.item() == pytest.approx(1) and ciou.item() == pytest.approx(1)
