"""The synthetic candidates, and the loop that `non_max_suppression` is compared with."""

import pytest
import torch

from nets.ops.nms import non_max_suppression
from utils.benchmark.post import CANDIDATES, candidates, nms_loop
from utils.core.timing import Budget, Stat, interleave, timed

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


@pytest.mark.slow
def test_nms_beats_the_loop():
    boxes, scores = candidates(CANDIDATES)
    limits = LIMITS["eval"]
    clocks = {
        "loop": timed(lambda: nms_loop(boxes, scores, *limits), count=20),
        "ours": timed(lambda: non_max_suppression(boxes[None], scores[None], *limits), count=20),
    }
    ratios = []
    for _ in range(3):
        times = interleave(clocks, Budget(0.0, 9, 9))
        ratios.append(Stat.of(times["loop"] / times["ours"]).median)
        if ratios[-1] > 1.2:
            return
    pytest.fail(f"times as fast as the loop: {ratios}")
