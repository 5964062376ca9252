"""One small finished comparison that the tests copy, read, and disturb."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from utils.compare import latency
from utils.compare.analysis import Comparison
from utils.compare.plan import Plan, make_plan
from utils.compare.workflow import compare

TINY_TRIAL = (
    "device=cpu",
    "precision=fp32",
    "threads=1",
    "input_size=64",
    "data.shapes_train=12",
    "data.shapes_val=8",
    "train.epochs=2",
    "train.batch_size=4",
    "train.optimizer=sgd",
    "train.save_minutes=1e-6",
)
TIME_COLUMNS = ("latency_ms", "train_seconds")


@pytest.fixture(scope="session")
def tiny_words() -> tuple[str, ...]:
    """Overrides that make a trial take a second."""
    return TINY_TRIAL


@contextmanager
def _fast_reports() -> Iterator[pytest.MonkeyPatch]:
    """No plots, which take longer than the trials, and a short measurement of latency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda *args, **options: None)
        patch.setattr(latency, "SECONDS", 0.0)
        yield patch


@pytest.fixture(autouse=True)
def fast_reports() -> Iterator[pytest.MonkeyPatch]:
    """For every test of this folder; `undo()` it to plot."""
    with _fast_reports() as patch:
        yield patch


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Comparison]:
    """`none` and `se` with seeds 0 and 1, undisturbed; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "out"
    plan = make_plan(
        "shapes.yaml", ("none", "se"), seeds=(0, 1), out=str(out), overrides=TINY_TRIAL
    )
    with _fast_reports():
        return plan, compare(plan, ["python", "compare.py", "--phi", "none", "se"])


@pytest.fixture
def copied(finished: tuple[Plan, Comparison], tmp_path: Path) -> Plan:
    """The same comparison in a folder of the test's own."""
    out = tmp_path / "copy"
    shutil.copytree(finished[0].out, out, copy_function=_copy)
    return replace(finished[0], out=out)


def _copy(source: str, target: str) -> None:
    """Checkpoints are large and never written in place, so a link is enough."""
    (os.link if source.endswith(".pt") else shutil.copy2)(source, target)


@pytest.fixture(scope="session")
def tables() -> Callable[[Path], list[list[str]]]:
    """`tables(out)`: the rows of results.csv and trials.csv without the columns that are times."""
    return _read_tables


def _read_tables(out: Path) -> list[list[str]]:
    rows = []
    for name in ("results.csv", "trials.csv"):
        lines = [line.split(",") for line in (out / name).read_text(encoding="utf-8").splitlines()]
        columns = [index for index, head in enumerate(lines[0]) if head not in TIME_COLUMNS]
        rows += [[line[index] for index in columns] for line in lines]
    return rows
