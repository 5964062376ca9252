"""Short chains of kills, and that a training which differs is noticed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nets.io import checkpoints
from tests.robustness import kill_chains
from tests.robustness.kill_chains import difference, run_chains, state
from utils.engine.experiment import Result


@pytest.mark.slow
def test_chains_of_kills_end_like_an_undisturbed_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_chains(1, 2, 0, tmp_path) == 1
    assert "1 of 1" in capsys.readouterr().out


def test_a_chain_that_ends_otherwise_is_told(
    trained: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """As if a kill had left another state, and the training had gone on from it."""

    def finish(folder: Path) -> float:
        shutil.copytree(trained.run, folder / kill_chains.RUN)
        return 1.0

    def disturbed(folder: Path, *args: object) -> int:
        finish(folder)
        add_bias(folder / kill_chains.RUN / "last.pt", "training", "network")
        return 1

    monkeypatch.setattr(kill_chains, "finish", finish)
    monkeypatch.setattr(kill_chains, "chain", disturbed)
    assert run_chains(1, 1, 0, tmp_path) == 0
    assert "0 of 1 (1 kills)" in capsys.readouterr().out


def add_bias(path: Path, *keys: str) -> None:
    content = checkpoints.load(path)
    tensors = content
    for key in keys:
        tensors = tensors[key]
    tensors["predict16.bias"] += 1e-6
    checkpoints.save(path, content)


def change_weights(run: Path) -> None:
    add_bias(run / "best.pt", "model")


def change_row(run: Path) -> None:
    path = run / "results.csv"
    head, first, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, "7" + first, *rows]))


def change_metrics(run: Path) -> None:
    path = run / "metrics.json"
    path.write_text(path.read_text().replace('"map50": ', '"map50": 1'))


@pytest.mark.parametrize("change", [change_weights, change_row, change_metrics])
def test_a_difference_is_found(change: Callable[[Path], None], trained: Result, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    expected = state(trained.run)
    assert not difference(expected, state(run))
    change(run)
    assert difference(expected, state(run))


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (torch.zeros(2), torch.zeros(2), ""),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), "x"),
        ({"a": [1, float("nan")], "seconds": 1}, {"a": [1, float("nan")], "seconds": 2}, ""),
        ({"a": [1, 2]}, {"a": [1, 3]}, "x.a.1: 2 and 3"),
        ({"a": 1}, {"b": 1}, "x: keys"),
        ([1], [1, 2], "x: length"),
    ],
)
def test_where_values_differ(first: object, second: object, where: str):
    assert difference(first, second, "x") == where
