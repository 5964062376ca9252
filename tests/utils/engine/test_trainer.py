"""The training loop: what it saves, when it stops, and that it resumes bit for bit."""

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nets.io import checkpoints
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.datasets import open_dataset
from utils.engine.experiment import new_detector
from utils.engine.runs import BEST, LAST
from utils.engine.trainer import Trainer

DROPOUT = "phi={feat1: {name: mhsa, dropout: 0.1}}"


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotting would take longer than the epoch."""
    monkeypatch.setattr("utils.engine.log.plot_training_curves", lambda history, path: None)


def make_trainer(config: Config, run: str = "run") -> Trainer:
    folder = Path(run)
    folder.mkdir()
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    return Trainer(folder, config, new_detector(config, train), train, val)


def copy_state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    return {
        name
        for name, tensor in module.state_dict().items()
        if not torch.equal(tensor, before[name])
    }


@pytest.mark.slow
def test_from_any_step_a_training_ends_in_the_same_state(
    tiny: Callable[..., Config], assert_same: Callable, monkeypatch: pytest.MonkeyPatch
):
    keys = ("augment.mixup=0.3", "augment.close_mosaic=1", "train.eval_every=2", DROPOUT)
    keys = (*keys, "train.optimizer=muon", "train.multi_scale=0.4")
    snapshots: list[dict[str, Any]] = []
    original = Trainer._save_last

    def save_and_keep(self: Trainer) -> None:
        original(self)
        snapshots.append(checkpoints.load(self.run / LAST))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_last", save_and_keep)
        make_trainer(tiny(*keys, "train.save_minutes=1e-9"), "undisturbed").fit()
    steps = []
    for snapshot in snapshots:
        progress = snapshot["training"]["progress"]
        steps.append((progress["epoch"], progress["step"]))
    assert steps == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    for number in (0, 3, 6):  # inside an epoch, between epochs, before the last evaluation
        resumed = make_trainer(tiny(*keys, f"seed={number + 1}"), f"resumed-{number}")
        resumed.config = tiny(*keys)  # the network started elsewhere: only what is saved may count
        resumed.batches.seed = resumed.config.seed
        resumed.restore(snapshots[number])
        resumed.fit()
        assert_same(
            checkpoints.load(resumed.run / LAST), snapshots[-1], f"resumed after {steps[number]}"
        )


def test_another_seed_is_another_training(tiny: Callable[..., Config], assert_same: Callable):
    ends = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = make_trainer(tiny("train.epochs=1", f"seed={seed}"), run)
        trainer.fit()
        ends.append(copy_state(trainer.network))
    assert_same(ends[0], ends[1], "the same seed")
    assert not torch.equal(ends[0]["head32.conv.weight"], ends[2]["head32.conv.weight"])


def break_loss(trainer: Trainer, steps: range, value: float = math.nan) -> None:
    """Make the box loss NaN or infinite in some of the calls, counted from 0."""
    original, calls = trainer.criterion, itertools.count()

    def criterion(maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts = original(maps, boxes, labels)
        if next(calls) not in steps:
            return parts
        return {**parts, "box": parts["box"] * value, "loss": parts["loss"] * value}

    trainer.criterion = criterion  # type: ignore[assignment]


def break_gradient(trainer: Trainer) -> None:
    """Make a gradient infinite in every step; the loss stays finite."""
    trainer.network.predict32.weight.register_hook(lambda gradient: gradient * math.inf)


def test_a_step_whose_loss_is_not_finite_is_skipped_named_and_drawn(
    tiny: Callable[..., Config], assert_same: Callable, capsys: pytest.CaptureFixture
):
    trainer = make_trainer(tiny("train.epochs=1", "data.shapes_train=8"))
    break_loss(trainer, range(1, 2))
    states = []
    original = trainer.step

    def step(batch: Any) -> Tensor:
        states.append(copy_state(trainer.network))
        return original(batch)

    trainer.step = step  # type: ignore[method-assign]
    trainer.run_epoch()
    after = {k: v for k, v in trainer.network.state_dict().items() if not is_counter(k)}
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
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.run_epoch()
    assert_same(before, dict(trainer.network.named_parameters()), "parameters")
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
    original, calls = trainer.criterion, itertools.count()

    def criterion(maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts = original(maps, boxes, labels)
        scale = 1 if next(calls) % 5 == 4 else math.nan
        return {name: value * scale for name, value in parts.items()}

    trainer.criterion = criterion  # type: ignore[assignment]
    trainer.run_epoch()
    assert (trainer.progress.step, trainer.progress.skipped) == (10, 8)


def test_a_checkpoint_of_other_data_is_refused(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=1"))
    trainer._save_last()
    saved = checkpoints.load(trainer.run / LAST)
    other = make_trainer(tiny("train.epochs=1", "data.shapes_train=12"), "other")
    with pytest.raises(UserError, match=r"train split has changed .*: 16 images .* 12 with"):
        other.restore(saved)


def test_a_frozen_backbone_stands_still_then_trains(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.freeze_epochs=1", "phi=se"))
    start = copy_state(trainer.network)
    trainer.run_epoch()
    moved = changed(start, trainer.network)
    assert not any(name.startswith("backbone.") for name in moved)
    assert {"predict32.weight", "predict16.bias", "neck.lateral.conv.weight"} <= moved
    assert any(name.startswith("attention.feat1") for name in moved)
    trainer._end_epoch(None)
    trainer.run_epoch()
    moved = changed(start, trainer.network)
    backbone = {name for name in start if name.startswith("backbone.")}
    assert backbone <= moved and any("running_mean" in name for name in backbone)


def scored(trainer: Trainer, scores: list[float]) -> None:
    """Replace the evaluation: map50_95 as listed."""
    given = iter(scores)
    trainer._evaluate = lambda: SimpleNamespace(map50=0.5, map50_95=next(given), voc_ap50=0.5)  # type: ignore


def test_patience_stops_and_the_best_weights_are_kept(tiny: Callable[..., Config]):
    trainer = make_trainer(
        tiny("train.epochs=8", "train.eval_every=1", "train.patience=2", "data.shapes_train=4")
    )
    scored(trainer, [0.1, 0.3, 0.3, math.nan])
    progress = trainer.fit()
    assert progress.done and progress.epoch == 4 and progress.best == 0.3
    assert checkpoints.load(trainer.run / BEST)["epoch"] == 2
    assert checkpoints.load(trainer.run / LAST)["epoch"] == 4
    rows = (trainer.run / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 4


def test_evaluations_come_as_asked_and_at_the_end(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=5", "train.eval_every=2", "data.shapes_train=4"))
    scored(trainer, [0.1, 0.2, 0.3])
    history = trainer.fit().history
    assert [row["epoch"] for row in history if "map50_95" in row] == [2, 4, 5]
    assert all(math.isfinite(row["loss"]) and row["lr"] > 0 for row in history)


def gradient_norm(trainer: Trainer) -> float:
    trainer.start_epoch()
    trainer.step(next(trainer.batches.epoch(0, closing=False)))
    return math.sqrt(
        sum(
            float(p.grad.square().sum()) for p in trainer.network.parameters() if p.grad is not None
        )
    )


def test_gradients_are_clipped(tiny: Callable[..., Config]):
    free = gradient_norm(make_trainer(tiny("train.max_grad_norm=0"), "free"))
    limit = free / 10
    assert gradient_norm(
        make_trainer(tiny(f"train.max_grad_norm={limit}"), "clipped")
    ) == pytest.approx(limit, rel=0.02)


def test_adamw_trains(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.optimizer=adamw", "train.epochs=1"))
    start = copy_state(trainer.network)
    history = trainer.fit().history
    assert trainer.forward is trainer.network  # compiled only when asked for
    assert isinstance(trainer.optimizer, torch.optim.AdamW) and math.isfinite(history[0]["loss"])
    assert {name for name, _ in trainer.network.named_parameters()} <= changed(
        start, trainer.network
    )


def test_the_ema_follows_the_network(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.ema_decay=0.5", "train.epochs=1"))
    start = copy_state(trainer.network)
    trainer.start_epoch()
    trainer.step(next(trainer.batches.epoch(0, closing=False)))
    name, decay = "predict32.weight", min(0.5, 2 / 11)
    now = trainer.network.state_dict()[name]
    expected = decay * start[name] + (1 - decay) * now
    assert torch.allclose(trainer.ema.network.state_dict()[name], expected, atol=1e-7)
    assert not torch.equal(now, start[name])


@pytest.mark.slow
def test_it_memorizes_a_few_images(tiny: Callable[..., Config]):
    keys = (
        "input_size=96",
        "data.shapes_train=8",
        "data.val=train",
        "train.epochs=40",
        "train.warmup_epochs=2",
        "augment.mosaic=0",
        "augment.scale=[1, 1]",
        "augment.translate=0",
        "train.ema_decay=0.9",
        "train.eval_every=40",
    )
    trainer = make_trainer(tiny(*keys))
    before = trainer._evaluate().map50
    history = trainer.fit().history
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["map50"] > max(0.5, 5 * before)


def gradients_of_a_step(config: Config, run: str) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients and loss values of a step with frozen batch norm; an image has no objects."""
    trainer = make_trainer(config, run)
    trainer.start_epoch()
    trainer.network.eval()  # batch norm with the statistics so far
    trainer.optimizer.zero_grad()
    batch = next(trainer.batches.epoch(0, closing=False))
    batch.labels[0] = -1
    values, problem = trainer._add_gradients(batch)
    assert problem is None
    named = trainer.network.named_parameters()
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
    assert trainer.ema.updates == 2 and trainer.progress.history[0]["loss"] > 0


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_step_without_memory_says_what_to_set(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer(tiny())
    monkeypatch.setattr(trainer, "forward", out_of_memory)
    monkeypatch.setattr(trainer, "_wrap_network", lambda: out_of_memory)
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


def test_a_log_file_gets_a_line_per_minute(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("utils.engine.progress_text.LINE_SECONDS", 0.0)
    make_trainer(tiny("train.epochs=1")).fit()
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert len(lines) == 4 and re.match(
        r"epoch 1/1, step 1/4  loss \d+\.\d{3} .* lr 0\.\d{4}  \(\d+ s left\)", lines[0]
    )
