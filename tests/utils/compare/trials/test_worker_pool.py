"""Trials side by side, on a Ray of two cores: the same results, also when workers die."""

import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan, Trial
from utils.compare.trials import ray_cluster, worker_pool
from utils.compare.trials.failures import Failure, read_failure
from utils.compare.trials.results import DETECTIONS
from utils.compare.trials.running import LOG, read_state
from utils.compare.trials.worker_pool import Workplace, time_left
from utils.compare.workflow import compare
from utils.core.errors import UserError
from utils.core.folder_lock import locked, read_holder
from utils.engine.runs import LAST

Tables = Callable[[Path], list[list[str]]]


@pytest.mark.parametrize(
    ("running", "waiting", "seconds"),
    [
        ([], 0, 0),
        ([], 5, 0),
        ([30], 0, 70),
        ([130], 0, 0),
        ([0, 0], 0, 100),
        ([0, 0], 1, 200),
        ([0, 0], 2, 200),
        ([20, 50], 1, 150),
        ([20, 50, 100], 3, 180),
        ([100], 3, 300),
    ],
)
def test_the_time_left_counts_what_runs_side_by_side(
    running: list[float], waiting: int, seconds: float
):
    assert time_left(100, running, waiting) == seconds


def test_a_worker_refuses_folders_that_are_not_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    project, out = tmp_path / "project", Path("runs") / "out"
    (project / out).mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot open .*\.holder: all machines must see the same"):
        Workplace(project, out, "here, process 1").enter()
    with locked(project / out, "is working", "wait"):
        holder = read_holder(project / out)
        Workplace(project, out, holder, ("/folder/of/blocks",)).enter()
        assert Path.cwd() == project and "/folder/of/blocks" in sys.path
        with pytest.raises(UserError, match=r"project/runs/out on .* differs: all machines"):
            Workplace(project, out, "there, process 1").enter()
    with pytest.raises(UserError, match=r"cannot open .*elsewhere"):
        Workplace(tmp_path / "elsewhere", out, holder).enter()


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """A Ray that `compare` uses and leaves as it is."""
    ray = pytest.importorskip("ray")
    options = {**ray_cluster.local_options(), "num_cpus": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "local_options", lambda: options)
        with ray_cluster.connect(ray_cluster.LOCAL):
            yield
            assert ray.is_initialized()
    assert not ray.is_initialized()


def process_ids(trial: Trial) -> list[int]:
    """The process of every attempt, from its log."""
    path = trial.folder / LOG
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [int(pid) for pid in re.findall(r"^--- .*, process (\d+)$", text, re.MULTILINE)]


@contextmanager
def killing(victims: Callable[[], set[int]], times: int) -> Iterator[set[int]]:
    """Meanwhile, kill the processes that `victims()` names, at most `times`; yields the killed."""
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


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
class TestOnRay:
    """One Ray for all of these."""

    def test_results_are_those_of_one_after_the_other(
        self,
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
        for trial, expected in zip(plan.trials, finished[0].trials, strict=True):
            arrays = np.load(trial.folder / DETECTIONS)
            expected_arrays = np.load(expected.folder / DETECTIONS)
            assert all(np.array_equal(arrays[key], expected_arrays[key]) for key in expected_arrays)
        logs = [(trial.folder / LOG).read_text(encoding="utf-8") for trial in plan.trials]
        assert all("epoch 2/2" in log for log in logs)
        processes = {pid for trial in plan.trials for pid in process_ids(trial)}
        # processes run several trials and read the data once
        assert sum("objects: " in log for log in logs) == len(processes) < 4
        out = capsys.readouterr().out
        assert "[1/4]" in out and re.search(r"^\[4/4\] \w+, seed \d: finished in \d+", out, re.M)
        assert out.count("begins on") == 4 and "epoch" not in out

    def test_a_trial_whose_worker_is_killed_is_resumed(
        self, copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
    ):
        monkeypatch.setattr(worker_pool, "PATIENCE_SECONDS", 0.0)
        expected, trial = tables(copied.out), copied.trials[3]
        shutil.rmtree(trial.folder)

        def training() -> set[int]:
            return set(process_ids(trial)) if (trial.folder / LAST).is_file() else set()

        with killing(training, times=1) as killed:
            compare(copied, [], ray="local")
        attempts = process_ids(trial)
        assert len(attempts) == 2 and killed == {attempts[0]} != {attempts[1]}
        log = (trial.folder / LOG).read_text(encoding="utf-8")
        second = log.partition(str(attempts[1]))[2]
        assert re.search(r"resuming .* in epoch \d, after step \d", second)
        out = capsys.readouterr().out
        begins = f"se, seed 1: begins on {socket.gethostname()}"
        assert f"{begins}\n" in out and f"{begins}, attempt 2 of 4: its worker died\n" in out
        assert out.count("no trial is running: waiting for the cluster") <= 1
        assert tables(copied.out) == expected

    def test_a_trial_that_kills_every_worker_fails_alone(
        self, copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
    ):
        for module in (ray_cluster, worker_pool):
            monkeypatch.setattr(module, "RETRIES", 2)
        expected, (*_, good, bad) = tables(copied.out), copied.trials
        shutil.rmtree(good.folder)
        shutil.rmtree(bad.folder)
        with killing(lambda: set(process_ids(bad)), times=10) as killed:
            comparison = compare(copied, [], ray="local")
        reason = "its worker died 3 times: killed, out of memory, or the machine was lost"
        assert len(killed) == len(process_ids(bad)) == 3
        assert comparison.failed == {("se", 1): Failure("infrastructure", reason)}
        assert (read_state(good), read_state(bad)) == ("finished", "failed")
        out = capsys.readouterr().out
        assert f"se, seed 1: failed: {reason}; continuing with the others" in out
        compare(copied, [])
        assert tables(copied.out) == expected

    def test_an_error_in_a_trial_is_no_reason_to_repeat_it(self, copied: Plan, capsys):
        none, se = copied.settings
        changes = {"lr": 1e30, "max_grad_norm": 0.0, "warmup_epochs": 0.0}
        config = se.config.model_copy(update={"train": se.config.train.model_copy(update=changes)})
        wild = replace(se, name="wild", folder="wild", config=config)
        plan = replace(copied, settings=(none, wild))
        comparison = compare(plan, [], ray="local")
        trials = [trial for trial in plan.trials if trial.setting == "wild"]
        assert set(comparison.failed) == {("wild", 0), ("wild", 1)}
        assert all(read_failure(trial.folder).kind == "diverged" for trial in trials)
        assert [len(process_ids(trial)) for trial in trials] == [1, 1]
        assert "[3/4] wild" in capsys.readouterr().out
