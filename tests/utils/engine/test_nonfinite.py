"""Steps whose loss or gradient is not finite change nothing, and are told."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from nets.io import checkpoints
from tests.utils.engine.trainers import copy_state, make_trainer
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.runs import LAST
from utils.engine.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_curves")


def break_loss(trainer: Trainer, steps: range, value: float = math.nan) -> None:
    """Make the box loss NaN or infinite in some of the calls, counted from 0."""
    original, calls = trainer.learner.criterion, itertools.count()

    def criterion(maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts = original(maps, boxes, labels)
        if next(calls) not in steps:
            return parts
        return {**parts, "box": parts["box"] * value, "loss": parts["loss"] * value}

    trainer.learner.criterion = criterion  # type: ignore[assignment]


def break_gradient(trainer: Trainer) -> None:
    """Make a gradient infinite in every step; the loss stays finite."""
    trainer.learner.network.predict32.weight.register_hook(lambda gradient: gradient * math.inf)


def test_a_step_whose_loss_is_not_finite_is_skipped_named_and_drawn(
    tiny: Callable[..., Config], assert_same: Callable, capsys: pytest.CaptureFixture
):
    trainer = make_trainer(tiny("train.epochs=1", "data.shapes_train=8"))
    break_loss(trainer, range(1, 2))
    states = []
    original = trainer.step

    def step(batch: Any) -> Tensor:
        states.append(copy_state(trainer.learner.network))
        return original(batch)

    trainer.step = step  # type: ignore[method-assign]
    trainer.run_epoch()
    after = {k: v for k, v in trainer.learner.network.state_dict().items() if not is_counter(k)}
    before = {k: v for k, v in states[1].items() if not is_counter(k)}
    assert_same(before, after, "weights and batch statistics")
    [line] = [text for text in capsys.readouterr().out.splitlines() if "skipped" in text]
    assert re.match(
        r"step skipped: the loss \(box nan\) is not finite in epoch 1, step 2; images shapes", line
    )
    assert (trainer.run / "skipped-1-2.png").is_file()
    assert trainer.progress.skipped == 1
    row = trainer._history_row(None)
    assert row["loss"] == trainer.progress.sums["loss"], "the mean over the only finite step"


def is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def test_a_gradient_that_is_not_finite_changes_nothing(
    tiny: Callable[..., Config], assert_same: Callable, capsys: pytest.CaptureFixture
):
    trainer = make_trainer(tiny("train.epochs=1", "train.max_grad_norm=0"))
    break_gradient(trainer)
    before = {name: value.clone() for name, value in trainer.learner.network.named_parameters()}
    trainer.run_epoch()
    assert_same(before, dict(trainer.learner.network.named_parameters()), "parameters")
    assert trainer.progress.skipped == trainer.batches.steps
    assert "the gradient of predict32.weight is not finite" in capsys.readouterr().out
    assert math.isnan(trainer._history_row(None)["loss"])


def test_training_stops_after_a_few_such_steps_in_a_row(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=9"))
    break_loss(trainer, range(4 + 2, 99), math.inf)
    with pytest.raises(UserError, match=r"box inf.* in epoch 3, step 3; .*5th .*train\.lr"):
        trainer.fit()
    assert checkpoints.load(trainer.run / LAST)["epoch"] == 2


def test_a_finite_step_starts_the_count_again(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=1", "data.shapes_train=40"))
    original, calls = trainer.learner.criterion, itertools.count()

    def criterion(maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts = original(maps, boxes, labels)
        scale = 1 if next(calls) % 5 == 4 else math.nan
        return {name: value * scale for name, value in parts.items()}

    trainer.learner.criterion = criterion  # type: ignore[assignment]
    trainer.run_epoch()
    assert (trainer.progress.step, trainer.progress.skipped) == (10, 8)
