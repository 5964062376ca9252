"""Command lines inside this process, in an empty folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from utils.core.cli import run_command


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`call(module, "--out", ...)`: the exit code of a command line inside this process."""

    def run(command: ModuleType, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *map(str, arguments)])
        try:
            run_command(command.main)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
