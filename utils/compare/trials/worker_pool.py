"""The trials of a comparison in parallel, one Ray task each.

Ray starts a task where its cores, GPU and memory are free, and retries it if its worker dies; the
retried task resumes the trial from its last checkpoint. On CPUs a worker process runs one trial
after the other and keeps the data; a trial on a GPU gets its own process (Ray's default), because
a GPU error persists in the process in which it occurred.

All machines see the same folders under the same paths: a task changes to the command's working
directory and must find the command's signature in the comparison's folder.
"""

import heapq
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2

from utils.compare.planning.plan import TRIALS, Plan, Trial
from utils.compare.trials.failures import ERROR, Failure, read_failure, write_failure
from utils.compare.trials.ray_cluster import (
    RETRIES,
    Resources,
    connect,
    estimate_resources,
    task_options,
)
from utils.compare.trials.results import DONE, read_result
from utils.compare.trials.running import LOG, SharedData, read_state, run_trial
from utils.core.cli import search_folder
from utils.core.errors import UserError
from utils.core.folder_lock import read_holder
from utils.core.process import configure_process
from utils.core.progress import duration

POLL_SECONDS = 1.0  # between checks for trials that have begun
PATIENCE_SECONDS = 60.0  # without a running trial, before the user is notified
FILE_DELAY_SECONDS = 90.0  # within which a network file system must show a file
SAME_FOLDERS = "all machines must see the same folders under the same paths"
ATTEMPT = re.compile(rb"^--- .*, (\S+), process \d+$", re.MULTILINE)  # in a trial's log


@dataclass(frozen=True)
class Workplace:
    """The command's working directory, the comparison's folder, its signature, and `sys.path`."""

    directory: Path
    out: Path
    holder: str
    search: tuple[str, ...] = ()

    def enter(self) -> None:
        """Set up a worker process.

        Raises:
            UserError: this machine does not see the folder, or sees another one.
        """
        host = socket.gethostname()
        try:
            os.chdir(self.directory)
            holder = read_holder(self.out)
        except OSError as error:
            raise UserError(f"{host} cannot open {error.filename}: {SAME_FOLDERS}") from None
        if holder != self.holder:
            raise UserError(f"{self.directory / self.out} on {host} differs: {SAME_FOLDERS}")
        for folder in self.search:
            search_folder(Path(folder))
        threads = int(os.environ["OMP_NUM_THREADS"])
        configure_process(threads)
        cv2.setNumThreads(threads)


@cache
def _worker_data() -> SharedData:
    """The data that this worker process keeps between trials."""
    return SharedData()


def run_in_worker(trial: Trial, workplace: Workplace) -> bool:
    """Call `run_trial` in a worker process, printing to the trial's log."""
    workplace.enter()
    trial.folder.mkdir(parents=True, exist_ok=True)
    path = trial.folder / LOG
    with (
        open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"--- {now}, {socket.gethostname()}, process {os.getpid()}")
        finished = run_trial(trial, _worker_data())
        print("finished" if finished else f"failed: {read_failure(trial.folder).reason}")
    return finished


def time_left(mean: float, running: Sequence[float], waiting: int) -> float:
    """Return the seconds until all trials are finished, if each takes `mean` seconds.

    Args:
        mean: duration of a trial, in seconds.
        running: seconds since the start of each running trial.
        waiting: number of trials that start when one of these ends.
    """
    free = [max(mean - seconds, 0.0) for seconds in running]
    heapq.heapify(free)
    for _ in range(waiting if free else 0):
        heapq.heapreplace(free, free[0] + mean)
    return max(free, default=0.0)


def run_on_cluster(
    address: str, plan: Plan, finished: Sequence[Trial], image_counts: Sequence[int]
) -> None:
    """Run every unfinished trial, printing a line when it begins and one when it ends.

    Args:
        address: address of a Ray cluster, or `local`.
        plan: the comparison.
        finished: trials that are already finished.
        image_counts: number of images in the training and in the validation split.

    Raises:
        UserError: the cluster cannot be joined, or its machines do not see the folder.
    """
    trials = [trial for trial in plan.trials if trial not in finished]
    if not trials:
        return
    print(f"each trial prints to its {LOG} in {plan.out / TRIALS}")
    with connect(address) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        pool = WorkerPool(ray, plan, len(finished))
        for trial in trials:
            pool.submit(trial, estimate_resources(trial.config, machines, image_counts))
        pool.wait()


class PendingTrial:
    """A trial submitted to Ray, which the command follows through its log."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.resumed = read_state(trial) != "new"
        self.attempts = 0
        self.host = "its worker"
        self.begun = time.monotonic()  # the last attempt
        log = trial.folder / LOG
        self._read = log.stat().st_size if log.is_file() else 0

    def look(self) -> None:
        """Print a line for every attempt that has begun since the last call."""
        try:
            with open(self.trial.folder / LOG, "rb") as log:
                log.seek(self._read)
                text = log.read()
        except FileNotFoundError:
            return
        text = text[: text.rfind(b"\n") + 1]  # the last line may be incomplete
        self._read += len(text)
        for host in ATTEMPT.findall(text):
            self.host = host.decode()
            self.attempts += 1
            self.begun = time.monotonic()
            attempt = ""
            if self.attempts > 1:
                attempt = f", attempt {self.attempts} of {RETRIES + 1}: its worker died"
            print(f"{self.trial}: begins on {self.host}{attempt}")


class WorkerPool:
    """Trials that Ray runs."""

    def __init__(self, ray: Any, plan: Plan, done: int) -> None:
        self.ray = ray
        self.workplace = Workplace(Path.cwd(), plan.out, read_holder(plan.out), tuple(sys.path))
        self.pending: dict[Any, PendingTrial] = {}  # by the task's reference
        self.done = done
        self.total = len(plan.trials)
        self.durations: list[float] = []  # of trials, seconds
        self._functions: dict[Resources, Any] = {}

    def submit(self, trial: Trial, resources: Resources) -> None:
        """Submit a trial to Ray, which starts trials with equal resources in this order."""
        if resources not in self._functions:
            remote = self.ray.remote(**task_options(resources))
            self._functions[resources] = remote(run_in_worker)
        pending = PendingTrial(trial)
        task = self._functions[resources].remote(trial, self.workplace)
        self.pending[task] = pending

    def wait(self) -> None:
        """Wait for all trials; if the wait ends early, they are ended too."""
        last_sign = time.monotonic()
        try:
            while self.pending:
                ended, _ = self.ray.wait(list(self.pending), timeout=POLL_SECONDS)
                for pending in self.pending.values():
                    pending.look()
                for task in ended:
                    self._end(task)
                if any(pending.attempts for pending in self.pending.values()):
                    last_sign = time.monotonic()
                elif time.monotonic() > last_sign + PATIENCE_SECONDS:
                    print("no trial is running: waiting for the cluster")
                    last_sign = float("inf")
        finally:
            for task in self.pending:
                self.ray.cancel(task, force=True)

    def _end(self, task: Any) -> None:
        """Report how a task has ended."""
        pending = self.pending.pop(task)
        trial = pending.trial
        finished = self._result(task, trial)
        _await_file(trial.folder / (DONE if finished else ERROR), pending.host)
        seconds = time.monotonic() - pending.begun
        if finished:
            whole = pending.attempts == 1 and not pending.resumed
            self.durations.append(seconds if whole else read_result(trial).train_seconds)
            message = f"finished in {duration(seconds)}"
        else:
            message = f"failed: {read_failure(trial.folder).reason}; continuing with the others"
        self.done += 1
        print(f"[{self.done}/{self.total}] {trial}: {message}{self._describe_time_left()}")

    def _result(self, task: Any, trial: Trial) -> bool:
        """Whether the trial is finished; writes the failure if the trial could not."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(task)
        except errors.RayTaskError as error:  # an exception outside `run_trial`
            if isinstance(error.cause, UserError):
                raise UserError(f"--ray: {error.cause}") from None
            write_failure(trial.folder, Failure("error", str(error)))
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            reason = "killed, out of memory, or the machine was lost"
            text = f"{error}\nits worker died {RETRIES + 1} times: {reason}"
            write_failure(trial.folder, Failure("infrastructure", text))
        except errors.RayError as error:
            write_failure(trial.folder, Failure("infrastructure", str(error)))
        return False

    def _describe_time_left(self) -> str:
        """The estimated time left just after a trial has ended."""
        now = time.monotonic()
        running = [now - each.begun for each in self.pending.values() if each.attempts]
        waiting = len(self.pending) - len(running)
        if not self.durations or not self.pending:
            return ""
        mean = sum(self.durations) / len(self.durations)
        # The worker that just became free takes one of the waiting trials.
        seconds = time_left(mean, [*running, mean], waiting)
        return f", about {duration(seconds)} left"


def _await_file(path: Path, host: str) -> None:
    """Wait for a file that another machine has written: network file systems show it late."""
    end = time.monotonic() + FILE_DELAY_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            raise UserError(f"{path}: written by {host}, but not visible here: {SAME_FOLDERS}")
        time.sleep(0.2)
        list(path.parent.glob("*"))  # listing the folder refreshes their cache
