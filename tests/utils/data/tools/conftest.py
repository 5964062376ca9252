"""The command line, called inside this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import utils.data.__main__ as command
from utils.core.cli import run_command


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`call("check", "--root", folder)`: the exit code of `python -m utils.data check ...`."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["utils.data", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_command(command.main)
        return int(end.value.code or 0)

    return run
