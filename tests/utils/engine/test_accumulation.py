"""Gradients clipped and added up over parts of a batch, and what to set without memory."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.utils.engine.trainers import make_trainer
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_curves")


def gradient_norm(trainer: Trainer) -> float:
    trainer.start_epoch()
    trainer.step(next(trainer.batches.epoch(0, closing=False)))
    return math.sqrt(
        sum(
            float(p.grad.square().sum())
            for p in trainer.learner.network.parameters()
            if p.grad is not None
        )
    )


def test_gradients_are_clipped(tiny: Callable[..., Config]):
    free = gradient_norm(make_trainer(tiny("train.max_grad_norm=0"), "free"))
    limit = free / 10
    assert gradient_norm(
        make_trainer(tiny(f"train.max_grad_norm={limit}"), "clipped")
    ) == pytest.approx(limit, rel=0.02)


def gradients_of_a_step(config: Config, run: str) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients and loss values of a step with frozen batch norm; an image has no objects."""
    trainer = make_trainer(config, run)
    trainer.start_epoch()
    trainer.learner.network.eval()  # batch norm with the statistics so far
    trainer.learner.optimizer.zero_grad()
    batch = next(trainer.batches.epoch(0, closing=False))
    batch.labels[0] = -1
    values, problem = trainer.learner.add_gradients(batch)
    assert problem is None
    named = trainer.learner.network.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}, values


@pytest.mark.parametrize(("size", "parts"), [(2, 2), (1, 4), (3, 2)])
def test_accumulated_gradients_are_those_of_the_large_batch(
    tiny: Callable[..., Config], size: int, parts: int
):
    whole = size * parts
    expected, loss = gradients_of_a_step(tiny(f"train.batch_size={whole}"), "whole")
    words = (f"train.batch_size={size}", f"train.accumulate={parts}")
    found, same_loss = gradients_of_a_step(tiny(*words), "parts")
    torch.testing.assert_close(same_loss, loss, rtol=1e-5, atol=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_accumulated_steps_are_counted_once_and_take_more_images(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.accumulate=2", "train.epochs=1"))
    assert trainer.batches.steps == 2  # 16 images
    trainer.fit()
    assert trainer.learner.ema.updates == 2 and trainer.progress.history[0]["loss"] > 0


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_step_without_memory_says_what_to_set(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer(tiny())
    monkeypatch.setattr(trainer.learner, "forward", out_of_memory)
    monkeypatch.setattr(trainer.learner, "_wrap_network", lambda: out_of_memory)
    message = (
        r"out of memory with 4 images of 64x64 at a time: set train\.batch_size=2 "
        r"train\.accumulate=2, or a smaller input_size"
    )
    with pytest.raises(UserError, match=message):
        trainer.fit()


def test_an_evaluation_without_memory_says_what_to_set(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer(tiny("train.epochs=1"))
    monkeypatch.setattr(trainer, "_evaluate", out_of_memory)
    with pytest.raises(UserError, match=r"in the evaluation: lower eval\.batch_size"):
        trainer.fit()
