"""The synthetic candidates and the plain loop that `non_max_suppression` is compared with."""

import pytest
import torch

from nets.ops.nms import non_max_suppression
from utils.benchmark.post import CANDIDATES, CLASSES, candidates, loop_select
from utils.core.timing import Budget, Stat, interleave, timed

LIMITS = {"predict": (0.25, 0.45, 300), "eval": (0.001, 0.5, 100)}


def test_every_candidate_is_one():
    boxes, scores = candidates(500)
    assert (
        boxes.shape == (500, 4)
        and scores.shape == (500, CLASSES)
        and (boxes[:, 2:] > boxes[:, :2]).all()
    )
    assert (
        int((scores > LIMITS["predict"][0]).sum()) == int((scores > LIMITS["eval"][0]).sum()) == 500
    )
    assert torch.equal(candidates(500)[0], boxes) and not torch.equal(
        candidates(500, seed=1)[0], boxes
    )


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize("count", [1500, CANDIDATES])
def test_select_finds_what_the_loop_finds(limits: tuple[float, float, int], count: int):
    boxes, scores = candidates(count)
    for mine, theirs in zip(
        non_max_suppression(boxes[None], scores[None], *limits)[0],
        loop_select(boxes, scores, *limits),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_ten_thousand_candidates_take_less_time_than_in_a_loop():
    boxes, scores = candidates(CANDIDATES)
    clocks = {
        "loop": timed(lambda: loop_select(boxes, scores, *LIMITS["eval"]), count=20),
        "select": timed(lambda: non_max_suppression(boxes[None], scores[None], *LIMITS["eval"]), count=20),
    }
    ratios = []
    for _ in range(3):
        times = interleave(clocks, Budget(0.0, 9, 9))
        ratios.append(Stat.of(times["loop"] / times["select"]).median)
        if ratios[-1] > 1.2:
            return
    pytest.fail(f"times as fast as the loop: {ratios}")
