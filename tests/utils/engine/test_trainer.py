"""The training loop: what it saves, when it stops, and that it resumes bit for bit."""

import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nets.io import checkpoints
from tests.utils.engine.trainers import copy_state, make_trainer
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.runs import BEST, LAST
from utils.engine.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_curves")

DROPOUT = "phi={feat1: {name: mhsa, dropout: 0.1}}"


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
        ends.append(copy_state(trainer.learner.network))
    assert_same(ends[0], ends[1], "the same seed")
    assert not torch.equal(ends[0]["head32.conv.weight"], ends[2]["head32.conv.weight"])


def test_a_checkpoint_of_other_data_is_refused(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=1"))
    trainer._save_last()
    saved = checkpoints.load(trainer.run / LAST)
    other = make_trainer(tiny("train.epochs=1", "data.shapes_train=12"), "other")
    with pytest.raises(UserError, match=r"train split has changed .*: 16 images .* 12 with"):
        other.restore(saved)


def test_a_frozen_backbone_stands_still_then_trains(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.freeze_epochs=1", "phi=se"))
    start = copy_state(trainer.learner.network)
    trainer.run_epoch()
    moved = changed(start, trainer.learner.network)
    assert not any(name.startswith("backbone.") for name in moved)
    assert {"predict32.weight", "predict16.bias", "neck.lateral.conv.weight"} <= moved
    assert any(name.startswith("attention.feat1") for name in moved)
    trainer._end_epoch(None)
    trainer.run_epoch()
    moved = changed(start, trainer.learner.network)
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


def test_without_objects_to_find_the_last_epoch_is_the_best(tiny: Callable[..., Config]):
    trainer = make_trainer(
        tiny("train.epochs=3", "train.eval_every=1", "train.patience=1", "data.shapes_train=4")
    )
    scored(trainer, [math.nan] * 3)
    assert trainer.fit().epoch == 3
    assert checkpoints.load(trainer.run / BEST)["epoch"] == 3


def test_patience_ends_after_evaluations_only_and_says_so(
    tiny: Callable[..., Config], capsys: pytest.CaptureFixture
):
    trainer = make_trainer(
        tiny("train.epochs=8", "train.eval_every=2", "train.patience=2", "data.shapes_train=4")
    )
    scored(trainer, [0.1])
    trainer.progress.best, trainer.progress.stale = 0.2, 2  # resumed with less patience
    assert trainer.fit().epoch == 2
    assert "(stopped: 3 evaluations without improvement)" in capsys.readouterr().out


def test_evaluations_come_as_asked_and_at_the_end(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.epochs=5", "train.eval_every=2", "data.shapes_train=4"))
    scored(trainer, [0.1, 0.2, 0.3])
    history = trainer.fit().history
    assert [row["epoch"] for row in history if "map50_95" in row] == [2, 4, 5]
    assert all(math.isfinite(row["loss"]) and row["lr"] > 0 for row in history)


def test_adamw_trains(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.optimizer=adamw", "train.epochs=1"))
    start = copy_state(trainer.learner.network)
    history = trainer.fit().history
    assert trainer.learner.forward is trainer.learner.network  # compiled only when asked for
    assert isinstance(trainer.learner.optimizer, torch.optim.AdamW) and math.isfinite(
        history[0]["loss"]
    )
    assert {name for name, _ in trainer.learner.network.named_parameters()} <= changed(
        start, trainer.learner.network
    )


def test_the_ema_follows_the_network(tiny: Callable[..., Config]):
    trainer = make_trainer(tiny("train.ema_decay=0.5", "train.epochs=1"))
    start = copy_state(trainer.learner.network)
    trainer.start_epoch()
    trainer.step(next(trainer.batches.epoch(0, closing=False)))
    name, decay = "predict32.weight", min(0.5, 2 / 11)
    now = trainer.learner.network.state_dict()[name]
    expected = decay * start[name] + (1 - decay) * now
    assert torch.allclose(trainer.learner.ema.network.state_dict()[name], expected, atol=1e-7)
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


def test_a_log_file_gets_a_line_per_minute(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("utils.engine.progress_text.LINE_SECONDS", 0.0)
    make_trainer(tiny("train.epochs=1")).fit()
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert len(lines) == 4 and re.match(
        r"epoch 1/1, step 1/4  loss \d+\.\d{3} .* lr 0\.\d{4}  \(\d+ s left\)", lines[0]
    )
