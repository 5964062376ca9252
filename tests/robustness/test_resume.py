"""Runs that cannot be resumed, and words that a resumed run cannot take."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.engine.experiment import Result

Content = dict[str, Any]


@pytest.fixture
def unfinished(tmp_path: Path, trained: Result) -> Path:
    """A copy of a run whose numbers are missing, as if its end had been interrupted."""
    run = tmp_path / "runs/tiny"
    shutil.copytree(trained.run, run)
    (run / "metrics.json").unlink()
    return run


def rewrite(run: Path, edit: Callable[[Content], object]) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    edit(content)
    torch.save(content, run / "last.pt")


def training(**values: Any) -> Callable[[Content], object]:
    return lambda content: content["training"].update(values)


def progress(**values: Any) -> Callable[[Content], object]:
    return lambda content: content["training"]["progress"].update(values)


# name -> (change to the content of last.pt, part of the message)
STATES: dict[str, tuple[Callable[[Content], object], str]] = {
    "weights only": (lambda content: content.pop("training"), "holds weights only"),
    "training null": (lambda content: content.update(training=None), "training: expected"),
    "training a list": (lambda content: content.update(training=[]), "training: expected"),
    "no progress": (lambda content: content["training"].pop("progress"), "progress is missing"),
    "no network": (lambda content: content["training"].pop("network"), "network is missing"),
    "no optimizer": (lambda content: content["training"].pop("optimizer"), "optimizer is missing"),
    "unknown key": (training(momentum=1), "training"),
    "epoch in words": (progress(epoch="two"), "progress.epoch: expected"),
    "epoch negative": (progress(epoch=-1), "progress.epoch: expected"),
    "epoch huge": (progress(epoch=10**30), "training.progress: epoch 1000"),
    "epoch beyond the plan": (progress(epoch=7), "training.progress: epoch 7 of 2"),
    "done in words": (progress(done="yes"), "progress.done: expected"),
    "seconds not a number": (progress(seconds=float("nan")), "progress.seconds"),
    "history of nothing": (progress(history=[]), "0 rows of history"),
    "history null": (progress(history=None), "progress.history: expected"),
    "average null": (training(average_updates=None), "average_updates: expected"),
    "optimizer null": (training(optimizer=None), "optimizer: expected"),
    "optimizer of another network": (
        lambda content: content["training"]["optimizer"]["state"].update(
            {9999: {"momentum_buffer": torch.zeros(1)}}
        ),
        "optimizer.state.9999: the network has only",
    ),
    "optimizer of other shapes": (
        lambda content: content["training"]["optimizer"]["state"][0].update(
            momentum_buffer=torch.zeros(1)
        ),
        "optimizer.state.0.momentum_buffer: shape (1,)",
    ),
    "optimizer not a number": (
        lambda content: content["training"]["optimizer"]["state"][0]["momentum_buffer"].fill_(
            float("nan")
        ),
        "contains NaN",
    ),
    "network not a number": (
        lambda content: next(iter(content["training"]["network"].values())).fill_(float("nan")),
        "contains NaN",
    ),
    "network of another shape": (
        lambda content: content["training"]["network"].update({"predict32.bias": torch.zeros(3)}),
        "predict32.bias",
    ),
    "other data": (
        lambda content: content["config"]["data"].update(shapes_train=20), "train",
    ),
    "unknown configuration key": (lambda content: content["config"].update(colour=1), "colour"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", STATES)
def test_a_damaged_state_is_one_line(case: str, unfinished: Path, refused: Callable[..., str]):
    edit, words = STATES[case]
    rewrite(unfinished, edit)
    message = refused("train", "--resume", "runs/tiny")
    assert words in message


WORDS: dict[str, str] = {
    "train.lr=0.1": "--resume with train.lr=...: a resumed run can change only",
    "train.batch_size=2": "--resume with train.batch_size=",
    "phi=se": "--resume with phi=",
    "seed=1": "--resume with seed=",
    "name=x": "--resume with name=",
    "input_size=96": "--resume with input_size=",
    "weights=best.pt": "--resume with weights=",
    "train.epoch=9": "unknown key; did you mean 'train.epochs'",
    "epochs=9": "unknown key",
    "train={lr: 1}": "--resume with train.lr=",
    "train=": "train",
    "train.epochs=1": "train.epochs=1, but 2 epochs are finished",
    "train.epochs=0": "train.epochs: expected 'auto' or 1 to",
    "train.epochs=many": "train.epochs: expected 'auto' or an integer",
    "train.epochs=auto": "train.epochs=auto: expected a number of epochs",
    "predict.score=2": "predict.score: expected 0 to 1",
    "device=cuda:50": "device=cuda:50",
    "output=elsewhere": "no last.pt",
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_a_resumed_run_cannot_take_is_one_line(
    word: str, unfinished: Path, refused: Callable[..., str]
):
    assert WORDS[word] in refused("train", "--resume", "tiny", word)


RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "finished": (lambda run: (run / "metrics.json").touch(), "training is already finished"),
    "without last.pt": (lambda run: (run / "last.pt").unlink(), "start again with"),
    "empty": (lambda run: (shutil.rmtree(run), run.mkdir()), "no last.pt"),
    "empty last.pt": (lambda run: (run / "last.pt").write_bytes(b""), "not readable as PyTorch"),
    "cut last.pt": (
        lambda run: (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:9000]),
        "not readable as PyTorch weights",
    ),
    "weights in last.pt": (lambda run: shutil.copyfile(run / "best.pt", run / "last.pt"),
        "holds weights only"),
    "other dictionary": (lambda run: torch.save({"model": {}}, run / "last.pt"),
        "not a checkpoint of this project"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_a_run_that_cannot_be_resumed_is_one_line(
    case: str, unfinished: Path, refused: Callable[..., str]
):
    edit, words = RUNS[case]
    edit(unfinished)
    assert words in refused("train", "--resume", unfinished)
