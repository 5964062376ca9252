"""Shared by all tests: one thread, a fixed seed, tiny trainings, files beside the repository."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

from utils.core.cli import run_command
from utils.core.config import load_config
from utils.core.schema import Config
from utils.engine.experiment import Result, train

# The same examples in every run; the fixtures that properties use hold no state
settings.register_profile(
    "tests",
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

TINY = (
    "device=cpu",
    "precision=fp32",
    "threads=1",
    "input_size=64",
    "data.shapes_train=16",
    "data.shapes_val=8",
    "train.epochs=2",
    "train.batch_size=4",
    "train.optimizer=sgd",  # muon's work does not shrink with the input
)
# Slow tests of half a minute and more
LONG = (
    "test_readme.py",
    "test_conformance.py",
    "test_whole_comparisons.py",
    "test_worker_pool.py",
    "test_killed_trainings.py",
    "test_torchrun.py",
    "test_kill_chains.py",
    "test_backends.py",
)


def pytest_configure() -> None:
    """Signals act as in a terminal, even if the tests run in the background (`nohup`, `&`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: the tests of a file follow one another in one process."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    """Tests are small: more threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """`tiny("KEY=VALUE", ...)`: a training of a second on the built-in data, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: load_config("shapes.yaml", [*TINY, *overrides])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished tiny training, for tests that only read it."""
    output = tmp_path_factory.mktemp("runs")
    return train(load_config("shapes.yaml", [*TINY, f"output={output}", "name=tiny"]))


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
