"""A command line in this process, and what every malformed input must end in."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from utils.core.cli import run_command
from utils.engine.experiment import Result

# What belongs to the program's inside and means nothing to its users
INTERNALS = re.compile(
    r"Traceback|weights_only|pydantic|BaseModel|function-(before|after|wrap)|literal\[|"
    r"\bNoneType\b|object at 0x|\bKeyError\b|\bAttributeError\b|\bTypeError\b|\bIndexError\b"
)
LONGEST = 700  # characters of an error: a value of the user is not echoed at any length


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code.
        output: what it printed.
        errors: what it printed to stderr.
    """

    code: int
    output: str
    errors: str

    @property
    def message(self) -> str:
        """The line that starts with "error: "."""
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.errors
        return lines[0]


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("train", "--config", ...)`: a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_words(command: str, *words: object) -> Ended:
        main = import_module(command).main
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            run_command(main)
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capfd.readouterr())

    return run_words


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that must refuse its input; return its message."""

    def run_words(command: str, *words: object) -> str:
        ended = run(command, *words)
        assert ended.code == 2, (ended.code, ended.output[-500:], ended.errors[-500:])
        assert len(ended.errors.splitlines()) == 1, ended.errors
        assert not INTERNALS.search(ended.errors), ended.errors
        assert len(ended.message) < LONGEST, ended.message
        return ended.message

    return run_words


@pytest.fixture
def weights(trained: Result) -> Path:
    """The weights of a finished tiny training."""
    return trained.run / "best.pt"
