"""A command line in this process, and what every malformed input must end in."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from robust_data import COUNT, ITEMS, NAMES, WRITERS, Read

from tests.robustness.internals import INTERNALS
from utils.core.cli import run_command
from utils.core.schema import DataConfig
from utils.data.loading import load_dataset
from utils.engine.experiment import Result
from utils.engine.trainer import Trainer

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
def refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must refuse its input before any training; return its message."""

    def fit(trainer: Trainer) -> None:
        raise AssertionError("the training begins")

    monkeypatch.setattr(Trainer, "fit", fit)

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


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """`written("voc")`: a dataset of three images in ./data, with one split, `val`."""
    return lambda kind: WRITERS[kind](tmp_path / "data", ITEMS, "val")


@pytest.fixture
def data_words(weights: Path) -> Callable[..., list[object]]:
    """`data_words("voc")`: the words of a command that evaluates ./data."""
    options = ("--json", "numbers.json")
    return lambda kind: ["--weights", weights, *options, f"data.format={kind}", "data.root=data"]


@pytest.fixture
def evaluated(run: Run, data_words: Callable[..., list[object]]) -> Callable[[str], Read]:
    """Evaluate ./data; how it was read."""

    def evaluate(kind: str) -> Read:
        ended = run("eval", *data_words(kind))
        assert (ended.code, ended.errors) == (0, ""), ended.errors
        data = DataConfig(format=kind, root="data")
        objects, targets = {}, 0
        for sample in load_dataset(data, "val", (64, 64), NAMES, progress=False).samples:
            labels = [NAMES[label] for label in sample.labels]
            rows = zip(labels, sample.boxes.round(2).tolist(), strict=True)
            targets += int((~sample.crowd).sum())
            objects[sample.path.name] = [(label, *box) for label, box in rows]
        numbers = json.loads(Path("numbers.json").read_text())
        counted = sum(row["objects"] for row in numbers["per_class"].values())
        assert numbers["images"] == len(objects)
        assert counted == targets
        counts = {rule: int(count) for count, rule in COUNT.findall(ended.output)}
        return Read(counts, objects, ended.output)

    return evaluate
