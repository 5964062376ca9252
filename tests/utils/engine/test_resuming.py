"""What can be resumed, with which changes, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from old_files import with_old_keys

from nets.io import checkpoints
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from tests.utils.engine.run_files import assert_equal, rows_without_time, weights
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.folder_lock import locked
from utils.core.schema import Config
from utils.engine.experiment import Result, resume, train
from utils.engine.runs import BEST, LAST
from utils.engine.trainer import Trainer


def test_auto_stays_in_the_configuration_and_the_run_has_numbers(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name, value in (("STEPS", 4), ("MIN_EPOCHS", 1), ("SMALL_BATCH_SIZE", 8)):
        monkeypatch.setattr(f"utils.engine.settle.{name}", value)
    config = tiny("train.batch_size=auto", "train.epochs=auto", "loss.class_weights=balanced")
    run = train(config).run
    assert "2 epochs, batch size 8, 2 steps per epoch" in capsys.readouterr().out
    assert load_config(run / "config.yaml") == config
    saved = checkpoints.load(run / LAST)["config"]["train"]
    assert (saved["epochs"], saved["batch_size"], saved["accumulate"]) == (2, 8, 1)
    assert resume(run, {"train.epochs": 3}).run == run


def test_a_run_has_one_owner(trained: Result):
    message = r"another train\.py is working there .*process"
    with locked(trained.run, "train.py is working", ""), pytest.raises(UserError, match=message):
        resume(trained.run)


def test_what_a_killed_process_left_is_removed(tiny: Callable[..., Config]):
    run = train(tiny("train.epochs=1")).run
    left = run / f".{'0' * 16}.part.pt"
    left.write_bytes(b"half")
    resume(run, {"train.epochs": 2})
    assert not left.exists()


def test_a_finished_run_can_be_prolonged(tiny: Callable[..., Config]):
    run = train(tiny("train.epochs=1")).run
    assert resume(run, {"train.epochs": 2, "train.eval_every": 1}).run == run
    assert [row["epoch"] for row in rows_without_time(run)] == ["1", "2"]
    assert load_config(run / "config.yaml").train.epochs == 2
    with pytest.raises(UserError, match=r"train\.epochs=1, but 2 epochs are finished"):
        resume(run, {"train.epochs": 1})


def test_a_run_that_lost_patience_starts_anew_when_prolonged(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    metrics = SimpleNamespace(map50=0.5, map50_95=0.1, voc_ap50=0.5)
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: metrics)
    run = train(tiny("train.epochs=6", "train.eval_every=1", "train.patience=2")).run
    assert len(rows_without_time(run)) == 3
    resume(run, {"train.epochs": 7})
    assert len(rows_without_time(run)) == 5


@pytest.mark.parametrize("key", ["seed", "train.lr", "augment.mosaic", "input_size", "phi"])
def test_a_resumed_run_cannot_become_another_one(key: str, trained: Result):
    with pytest.raises(UserError, match=f"--resume with {key}="):
        resume(trained.run, {key: 1})


def test_a_training_killed_while_its_report_is_made_can_be_finished(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("utils.engine.experiment.evaluate_detector", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny("train.epochs=1"))
    run = Path("runs/shapes")
    best = weights(run / BEST)
    assert (
        resume("shapes").run == run
        and (run / "metrics.json").is_file()
        and (run / "predictions.png").is_file()
    )
    assert_equal(weights(run / BEST), best)


def test_ctrl_c_says_how_to_go_on(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys
):
    original = Trainer.step

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.progress.epoch == 1:
            raise KeyboardInterrupt  # in the middle of a step, whose state cannot be saved
        return original(self, batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    assert checkpoints.load(Path("runs/shapes") / LAST)["training"]["progress"]["step"] == 0
    assert f"train.py --resume {Path('runs/shapes')}" in capsys.readouterr().out


def save_weights_only(run: Path) -> None:
    checkpoints.save(run / LAST, checkpoints.describe(YOLOv4Tiny(1), Config(), ["a"]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda run: None, r"no last\.pt"),
        (lambda run: (run / LAST).write_bytes(b"PK\x03\x04 cut off"), r"last\.pt: not readable"),
        (lambda run: torch.save({"a": 1}, run / LAST), "not a checkpoint of this project"),
        (save_weights_only, "weights only"),
    ],
)
def test_what_cannot_be_resumed(
    make: Callable[[Path], object], words: str, tiny: Callable[..., Config]
):
    run = Path("runs/a")
    tiny()
    run.mkdir(parents=True)
    make(run)
    with pytest.raises(UserError, match=words):
        resume(run)


def test_a_run_of_an_earlier_version_is_resumed(trained: Result, tmp_path: Path):
    """Its configuration has the old names of keys."""
    run = tmp_path / "old"
    shutil.copytree(trained.run, run)
    (run / "metrics.json").unlink()
    saved = checkpoints.load(run / LAST)
    saved["config"] = with_old_keys(load_config(run / "config.yaml"))
    checkpoints.save(run / LAST, saved)
    result = resume(run)
    assert result.run == run
    assert result.evaluation.metrics.map50 == trained.evaluation.metrics.map50
