"""Where a step's time goes: the parts add up, are told apart, and the watched step is the trainer's own."""

import copy
import time

import pytest
import torch

from utils.benchmark.bench import Bench
from utils.benchmark.data import endless
from utils.benchmark.parts import PARTS, shares, watched_step

SLOW = 0.15  # seconds


def test_shares_of_the_whole_by_hand():
    step = {
        **dict.fromkeys(PARTS, 0.0),
        "forward": 3.0,
        "loss": 1.0,
        "loss_backward": 2.0,
        "backward": 4.0,
    }
    found = shares([step, {**step, "forward": 13.0}])
    assert found["forward"] == pytest.approx([30.0, 65.0])
    assert found["loss_whole"] == pytest.approx([30.0, 15.0])
    assert sum(found[part] for part in PARTS) == pytest.approx([100.0, 100.0])


def test_a_watched_step_is_a_step(bench: Bench):
    """The same weights afterwards, and nothing of the watch stays behind."""
    trainer, other = bench.trainer("fp32"), bench.trainer("fp32")
    trainer.start_epoch()
    other.start_epoch()
    seconds = watched_step(trainer, endless(trainer.batches))
    other.step(next(endless(other.batches)))
    for mine, theirs in zip(trainer.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert seconds.keys() == PARTS.keys() and all(value > 0 for value in seconds.values())
    kept = copy.copy(seconds)
    trainer.step(bench.batch)
    assert (
        seconds == kept
        and trainer.forward is trainer.network
        and isinstance(trainer.criterion, torch.nn.Module)
    )


@pytest.mark.parametrize(
    "part", ["batch", "forward", "loss", "loss_backward", "backward", "optimizer", "average"]
)
def test_what_is_slow_is_found(bench: Bench, part: str, monkeypatch: pytest.MonkeyPatch):
    trainer = bench.trainer("fp32")
    trainer.start_epoch()
    batches = endless(trainer.batches)

    def slowed(call):
        def run(*arguments):
            time.sleep(SLOW)
            return call(*arguments)

        return run

    def slow_gradient(tensor):
        tensor.register_hook(lambda _: time.sleep(SLOW))

    if part == "batch":
        monkeypatch.setattr(
            trainer.batches.dataset, "canvases", slowed(trainer.batches.dataset.canvases)
        )
    elif part == "forward":
        trainer.network.register_forward_pre_hook(lambda *_: time.sleep(SLOW))
    elif part == "loss":
        trainer.criterion.register_forward_pre_hook(lambda *_: time.sleep(SLOW))
    elif part == "loss_backward":
        trainer.criterion.register_forward_hook(lambda _, __, parts: slow_gradient(parts["cls"]))
    elif part == "backward":
        slow_gradient(next(trainer.network.parameters()))
    elif part == "optimizer":
        trainer.optimizer.register_step_pre_hook(lambda *_: time.sleep(SLOW))
    else:
        monkeypatch.setattr(trainer.ema, "update", slowed(trainer.ema.update))
    seconds = watched_step(trainer, batches)
    assert seconds[part] >= SLOW
