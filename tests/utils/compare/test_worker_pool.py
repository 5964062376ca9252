"""Trainings side by side, on a Ray of two cores: the same results, also when workers die."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.compare import cluster, crew
from utils.compare.analysis import Comparison
from utils.compare.cells import LOG, failure, state
from utils.compare.plan import Cell, Plan
from utils.compare.results import DETECTIONS
from utils.compare.running import compare
from utils.engine.runs import LAST

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_cores")]
Tables = Callable[[Path], list[list[str]]]


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """A Ray that `compare` finds and leaves as it is."""
    own = {**cluster._own(), "num_cpus": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_own", lambda: own)
        with cluster.joined(cluster.LOCAL):
            yield
            assert ray.is_initialized()
    assert not ray.is_initialized()


def pids(cell: Cell) -> list[int]:
    """The worker of every attempt, from what it has printed."""
    path = cell.folder / LOG
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [int(pid) for pid in re.findall(r"^--- .*, process (\d+)$", text, re.MULTILINE)]


@contextmanager
def killing(victims: Callable[[], set[int]], times: int) -> Iterator[set[int]]:
    """Meanwhile, kill every process that `victims()` names, so many at most; gives those that were."""
    killed: set[int] = set()
    end = threading.Event()

    def watch() -> None:
        while len(killed) < times and not end.wait(0.002):
            for pid in victims() - killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        end.set()
        thread.join()


def test_results_are_those_of_one_after_the_other(
    finished: tuple[Plan, Comparison],
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    monkeypatch.chdir(tmp_path)  # relative folders are of the command's working directory
    plan = replace(finished[0], out=Path("side by side"))
    compare(plan, [], ray="local")
    assert tables(plan.out) == tables(finished[0].out)
    for one, other in zip(plan.cells, finished[0].cells, strict=True):
        arrays = np.load(one.folder / DETECTIONS), np.load(other.folder / DETECTIONS)
        assert all(np.array_equal(arrays[0][key], arrays[1][key]) for key in arrays[1])
    logs = [(cell.folder / LOG).read_text(encoding="utf-8") for cell in plan.cells]
    assert all("epoch 2/2" in log for log in logs)
    assert len({pid for cell in plan.cells for pid in pids(cell)}) == 2
    assert sum("objects: " in log for log in logs) == 2  # each worker has read the data once
    out = capsys.readouterr().out
    assert "[1/4]" in out and re.search(
        r"^\[4/4\] \w+, seed 1: finished in \d+ s$", out, re.MULTILINE
    )
    assert out.count("begins on") == 4 and "epoch" not in out


def test_a_killed_workers_training_goes_on(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(crew, "PATIENCE", 0.2)  # no worker imports PyTorch in less
    expected, cell = tables(copied.out), copied.cells[3]
    shutil.rmtree(cell.folder)

    def training() -> set[int]:
        return set(pids(cell)) if (cell.folder / LAST).is_file() else set()

    with killing(training, times=1) as killed:
        compare(copied, [], ray="local")
    attempts = pids(cell)
    assert len(attempts) == 2 and killed == {attempts[0]} != {attempts[1]}
    log = (cell.folder / LOG).read_text(encoding="utf-8")
    assert re.search(r"resuming .* in epoch \d, after step \d", log.partition(str(attempts[1]))[2])
    out = capsys.readouterr().out
    assert f"its worker on {os.uname().nodename} died; attempt 2 of 4 follows" in out
    assert out.count("no worker has started yet: waiting for the cluster") == 1
    assert tables(copied.out) == expected


def test_a_training_that_kills_every_worker_fails_alone(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(crew, "RETRIES", 2)
    expected, (*_, good, bad) = tables(copied.out), copied.cells
    shutil.rmtree(good.folder)
    shutil.rmtree(bad.folder)
    with killing(lambda: set(pids(bad)), times=10) as killed:
        comparison = compare(copied, [], ray="local")
    reason = "its worker died 3 times: killed, out of memory, or the machine was lost"
    assert len(killed) == len(pids(bad)) == 3
    assert comparison.failed == {("se", 1): reason}
    assert (state(good), state(bad)) == ("finished", "failed")
    assert f"se, seed 1: failed: {reason}; going on with the others" in capsys.readouterr().out
    compare(copied, [])
    assert tables(copied.out) == expected


def test_an_error_in_a_training_is_no_reason_to_repeat_it(copied: Plan, capsys):
    none, se = copied.variants
    wild = se.config.train.model_copy(update={"lr": 1e30, "clip": 0.0, "warmup_epochs": 0.0})
    variant = replace(
        se, name="wild", folder="wild", config=se.config.model_copy(update={"train": wild})
    )
    plan = replace(copied, variants=(none, variant))
    comparison = compare(plan, [], ray="local")
    cells = [cell for cell in plan.cells if cell.variant == "wild"]
    assert set(comparison.failed) == {("wild", 0), ("wild", 1)}
    assert all("not finite" in str(failure(cell)) for cell in cells)
    assert [len(pids(cell)) for cell in cells] == [1, 1]
    assert pids(cells[0]) != pids(
        cells[1]
    )  # what a failed one leaves on a GPU does not meet the next
    assert "[3/4] wild" in capsys.readouterr().out
