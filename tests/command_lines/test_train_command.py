"""train.py: where runs are looked for, the explained keys, Ctrl-C."""

from collections.abc import Callable

import pytest

import train as train_cli
from utils.engine.experiment import Result


def test_resume_looks_for_runs_where_output_says(trained: Result, call: Callable[..., int], capsys):
    arguments = ("--resume", trained.run.name, f"output={trained.run.parent}")
    assert call(train_cli, *arguments) == 2
    assert "training is already finished" in capsys.readouterr().err
    assert call(train_cli, "--resume", trained.run.name) == 2
    assert "no last.pt" in capsys.readouterr().err


def test_the_keys_are_explained(call: Callable[..., int], capsys):
    assert call(train_cli, "--explain") == 0
    assert "train.batch_size" in capsys.readouterr().out


def test_interrupted(call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.core.config.load_config", interrupted)
    assert call(train_cli, "--config", "shapes.yaml") == 130
    assert capsys.readouterr().err == "interrupted\n"
