"""Trials are kept, resumed, and fail alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nets.io import checkpoints
from utils.compare import workflow
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan, Trial
from utils.compare.planning.request import make_plan
from utils.compare.trials import running
from utils.compare.trials.failures import ERROR, Failure, read_failure
from utils.compare.trials.results import DETECTIONS, DONE, fingerprint, read_detections, read_result
from utils.compare.trials.running import SharedData, read_state, run_trial
from utils.compare.workflow import compare, run_trials
from utils.core.errors import UserError
from utils.data.loading import load_dataset
from utils.engine.evaluation import evaluate_weights
from utils.engine.runs import BEST, LAST
from utils.engine.trainer import Trainer
from utils.metrics.detection_metrics import evaluate

Tables = Callable[[Path], list[list[str]]]


def must_not_train(*args: object) -> None:
    raise AssertionError("a finished trial is trained again")


def test_finished_trials_are_reused(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    for name in ("train", "resume", "close_run"):
        monkeypatch.setattr(running, name, must_not_train)

    def changes() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in copied.out.glob("trials/*/*/*")}

    before, expected = changes(), tables(copied.out)
    compare(copied, [])
    assert before and changes() == before
    assert tables(copied.out) == expected
    assert "4 trials, 4 of them already finished" in capsys.readouterr().out


def test_a_trial_holds_what_the_evaluator_measured(finished: tuple[Plan, Comparison]):
    trial = finished[0].trials[1]
    split = load_dataset(trial.config.data, "val", trial.config.input_size)
    detections = read_detections(trial, split.samples, split.class_names)
    metrics = evaluate(split.samples, detections, split.class_names)
    result = read_result(trial)
    assert sum(map(len, detections)) > 0
    expected = (100 * metrics.map50_95, 100 * metrics.map50)
    assert (result.ap, result.ap50) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="detections are not on the 7 images"):
        read_detections(trial, split.samples[1:], split.class_names)


def test_the_last_epoch_is_scored(finished: tuple[Plan, Comparison]):
    """The best of several evaluations on the test images flatters noisy curves."""
    for trial in finished[0].trials:
        best, last = (checkpoints.load(trial.folder / name) for name in (BEST, LAST))
        assert best["epoch"] == last["epoch"] == 2
        assert all(torch.equal(best["model"][key], last["model"][key]) for key in last["model"])


def test_with_a_test_split_the_epoch_is_chosen_on_another(
    tiny_words: tuple[str, ...], tmp_path: Path
):
    words = [*tiny_words, "data.test=test", "train.patience=1", "train.epochs=1"]
    plan = make_plan("shapes.yaml", ("none", "se"), out=str(tmp_path), overrides=words)
    trial, data = plan.trials[0], SharedData()
    assert run_trial(trial, data)
    datasets = data.load(trial.config)
    record = json.loads((trial.folder / DONE).read_text(encoding="utf-8"))
    metrics = json.loads((trial.folder / "metrics.json").read_text(encoding="utf-8"))
    assert datasets.test is not None and datasets.final is datasets.test
    assert (
        record["truth"] == fingerprint(datasets.test.samples) != fingerprint(datasets.val.samples)
    )
    assert record["metrics"] == metrics["test"] and trial.config.train.select == "best"
    evaluation = evaluate_weights(str(trial.folder), split="test")
    detections = read_detections(trial, datasets.test.samples, datasets.test.class_names)
    for one, other in zip(evaluation.detections, detections, strict=True):
        assert np.array_equal(one.boxes, other.boxes)


def test_data_is_loaded_once(finished: tuple[Plan, Comparison]):
    data = SharedData()
    first, second, *_ = (trial.config for trial in finished[0].trials)
    assert data.load(first) is data.load(second)
    larger = first.model_copy(update={"input_size": (96, 96)})
    assert data.load(larger) is not data.load(first)
    uncached = first.data.model_copy(update={"cache": "none"})
    config = first.model_copy(update={"data": uncached})
    # only later trials would know which images are damaged
    assert data.load(config) is not data.load(config)


@pytest.mark.slow
def test_a_failed_trial_is_shown_and_tried_again(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    expected, broken = tables(copied.out), copied.trials[1]
    shutil.rmtree(broken.folder)

    def out_of_memory(self: Trainer) -> None:
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", out_of_memory)
        comparison = compare(copied, [])
    reason = "RuntimeError: CUDA out of memory"
    failure = Failure("infrastructure", reason)
    assert read_state(broken) == "failed" and read_failure(broken.folder) == failure
    assert f"failed: {reason}" in capsys.readouterr().out
    assert comparison.failed == {("se", 0): failure}
    assert [setting.failed for setting in comparison.settings] == [0, 1]
    assert [pair.ap.seeds for pair in comparison.pairs] == [1]
    for name in ("report.html", "report.md"):
        text = (copied.out / name).read_text(encoding="utf-8")
        assert "CUDA out of memory" in text and "se, seed 0" in text
    assert ["se", "0", "failed"] in [row[:3] for row in tables(copied.out)]
    compare(copied, [])
    assert not (broken.folder / ERROR).exists() and tables(copied.out) == expected


def test_no_finished_trial_is_an_error(
    tmp_path: Path, copied: Plan, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object) -> None:
        raise UserError("the loss is not finite")

    monkeypatch.setattr(running, "train", broken)
    message = "no trial finished; the first error: the loss is not finite"
    with pytest.raises(UserError, match=message):
        compare(replace(copied, out=tmp_path / "new"), [])


def test_an_interrupted_trial_is_resumed_inside_an_epoch(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    expected, trial = tables(copied.out), copied.trials[3]
    shutil.rmtree(trial.folder)
    steps, whole = [], Trainer.step

    def interrupted(self: Trainer, batch: object):
        if len(steps) == 4:  # the second of the second epoch's three
            raise KeyboardInterrupt
        steps.append(0)
        return whole(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(copied, [])
    assert read_state(trial) == "started" and (trial.folder / LAST).is_file()
    compare(copied, [])
    assert "in epoch 2, after step 1" in capsys.readouterr().out
    assert read_state(trial) == "finished" and tables(copied.out) == expected


def test_a_trial_killed_while_its_result_is_written_is_not_trained_again(
    copied: Plan, monkeypatch: pytest.MonkeyPatch
):
    trial = copied.trials[0]
    before = (read_result(trial).ap, dict(np.load(trial.folder / DETECTIONS)))
    monkeypatch.setattr(running, "train", must_not_train)
    monkeypatch.setattr(Trainer, "step", must_not_train)
    for missing in ((DONE,), (DONE, DETECTIONS, "metrics.json")):
        for name in missing:
            (trial.folder / name).unlink()
        assert run_trial(trial, SharedData()) and read_state(trial) == "finished"
        after = dict(np.load(trial.folder / DETECTIONS))
        assert read_result(trial).ap == before[0]
        assert all(np.array_equal(after[key], value) for key, value in before[1].items())


def test_a_folder_with_another_configuration_is_refused(copied: Plan):
    trial = copied.trials[0]
    longer = trial.config.train.model_copy(update={"epochs": 3})
    changed = replace(trial, config=trial.config.model_copy(update={"train": longer}))
    message = r"was trained with train.epochs=2, not 3: give another --out"
    with pytest.raises(UserError, match=message):
        read_state(changed)
    moved = trial.config.model_copy(update={"name": "elsewhere", "output": "other"})
    assert read_state(replace(trial, config=moved)) == "finished"


def test_a_folder_of_an_earlier_version_is_refused(copied: Plan):
    (copied.out / "trials").rename(copied.out / "cells")
    with pytest.raises(UserError, match=r"made by an earlier version .* give another --out$"):
        compare(copied, [])
    assert not (copied.out / "trials").exists()


def test_a_folder_without_a_checkpoint_is_begun_anew(copied: Plan):
    trial = copied.trials[0]
    (trial.folder / LAST).unlink()
    (trial.folder / "config.yaml").write_text("train: {epo")  # killed while it was written
    assert read_state(trial) == "new"


def test_labels_that_change_after_the_training_are_noticed(copied: Plan):
    path = copied.trials[0].folder / DONE
    text = path.read_text(encoding="utf-8")
    truth = str(read_result(copied.trials[0]).truth)
    path.write_text(text.replace(f'"truth": {truth}', '"truth": 1'), encoding="utf-8")
    with pytest.raises(UserError, match="labels have changed since"):
        compare(copied, [])


def test_the_time_left_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, copied: Plan
):
    def quick(trial: Trial, data: SharedData) -> bool:
        clock[0] += 100
        return True

    clock = [0.0]
    monkeypatch.setattr(workflow, "run_trial", quick)
    monkeypatch.setattr(workflow.time, "monotonic", lambda: clock[0])
    run_trials(replace(copied, out=tmp_path / "new").trials, [], SharedData())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines == [
        "[1/4] none, seed 0",
        "[2/4] se, seed 0, about 5 min left",
        "[3/4] none, seed 1, about 3 min left",
        "[4/4] se, seed 1, about 2 min left",
    ]
