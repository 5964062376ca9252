"""The synthetic candidates, and the loop that `non_max_suppression` is compared with."""

import pytest
import torch

from nets.ops.nms import non_max_suppression
from utils.benchmark.post import CANDIDATES, candidates, nms_loop

LIMITS = {"predict": (0.25, 0.45, 300), "eval": (0.001, 0.5, 100)}


def test_every_candidate_is_one():
    boxes, scores = candidates(500)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    for score, *_ in LIMITS.values():
        assert ((scores > score).sum(1) == 1).all()


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize("count", [1500, CANDIDATES])
def test_nms_selects_what_the_loop_selects(limits: tuple[float, float, int], count: int):
    boxes, scores = candidates(count)
    ours = non_max_suppression(boxes[None], scores[None], *limits)[0]
    for column, expected in zip(ours, nms_loop(boxes, scores, *limits), strict=True):
        assert torch.equal(column, expected)
