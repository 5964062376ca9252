"""The shares of a step add up, a slow phase is found, and the profiled step is the trainer's."""

import time

import pytest
import torch
from torch import Tensor

from utils.benchmark.data import endless_batches
from utils.benchmark.session import BenchmarkSession
from utils.benchmark.step_profile import SHARES, profile_step
from utils.engine.trainer import Trainer

SLOW = 0.5  # seconds
PHASES = [phase for phase in SHARES if phase not in ("rest", "loss_whole")]


def test_a_profiled_step_is_a_step(session: BenchmarkSession):
    profiled, other = session.trainer("fp32"), session.trainer("fp32")
    profiled.start_epoch()
    other.start_epoch()
    shares = profile_step(profiled, endless_batches(profiled.batches))
    other.step(next(endless_batches(other.batches)))
    pairs = zip(
        profiled.learner.network.parameters(), other.learner.network.parameters(), strict=True
    )
    assert all(torch.equal(*pair) for pair in pairs)
    assert shares.keys() == SHARES.keys() and all(share > 0 for share in shares.values())
    assert shares["loss_whole"] == pytest.approx(shares["loss"] + shares["loss_backward"])
    assert sum(shares.values()) - shares["loss_whole"] == pytest.approx(100)


def slow_gradient(tensor: Tensor) -> None:
    tensor.register_hook(lambda _: time.sleep(SLOW))


def slow_down(trainer: Trainer, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowed(function):
        def run(*arguments):
            time.sleep(SLOW)
            return function(*arguments)

        return run

    if phase == "batch":
        dataset = trainer.batches.dataset
        monkeypatch.setattr(dataset, "canvases", slowed(dataset.canvases))
    elif phase == "forward":
        trainer.learner.network.register_forward_pre_hook(lambda *_: time.sleep(SLOW))
    elif phase == "loss":
        trainer.learner.criterion.register_forward_pre_hook(lambda *_: time.sleep(SLOW))
    elif phase == "loss_backward":
        trainer.learner.criterion.register_forward_hook(
            lambda *call: slow_gradient(call[-1]["cls"])
        )
    elif phase == "backward":
        slow_gradient(next(trainer.learner.network.parameters()))
    elif phase == "optimizer":
        trainer.learner.optimizer.register_step_pre_hook(lambda *_: time.sleep(SLOW))
    else:
        monkeypatch.setattr(trainer.learner.ema, "update", slowed(trainer.learner.ema.update))


@pytest.mark.parametrize("phase", PHASES)
def test_a_slow_phase_is_found(
    session: BenchmarkSession, phase: str, monkeypatch: pytest.MonkeyPatch
):
    trainer = session.trainer("fp32")
    trainer.start_epoch()
    plain = profile_step(trainer, endless_batches(trainer.batches))
    slow_down(trainer, phase, monkeypatch)
    shares = profile_step(trainer, endless_batches(trainer.batches))
    gains = {name: shares[name] - plain[name] for name in PHASES}
    assert max(gains, key=gains.__getitem__) == phase
