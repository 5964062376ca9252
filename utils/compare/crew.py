"""The trainings of a comparison side by side, by workers on a Ray cluster.

A worker is a process with CPU cores, or a GPU, of its own. It runs one training after the other and keeps the
data between them. If it dies, another one goes on with its training. All machines see the same folders under the same
paths: a worker goes to the command's working directory and must find the command's lock.
"""

import heapq
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from utils.compare.cells import ERROR, LOG, SharedData, failure, run_cell, state, write_failure
from utils.compare.cluster import Needs, joined, needs, options
from utils.compare.lock import LOCK
from utils.compare.plan import Cell, Plan
from utils.compare.results import DONE, read_outcome
from utils.compare.wording import duration
from utils.core.errors import UserError

RETRIES = (
    3  # new attempts for a training whose worker died; also, workers that may die before they begin
)
PATIENCE, DELAY = (
    60.0,
    90.0,
)  # seconds: without any worker; until a network file system tells of a file
SAME = "all machines must see the same folders under the same paths"


class Worker:
    """In a process of the cluster: runs trainings."""

    def __init__(self) -> None:
        self.data = SharedData()

    def start(self, place: Path, out: Path, mark: str) -> str:
        """Go to the working directory `place`; returns the machine's name.

        Raises:
            UserError: `out` is not the folder whose lock reads `mark`.
        """
        host = socket.gethostname()
        try:
            os.chdir(place)
            found = (out / LOCK).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{host} cannot open {error.filename}: {SAME}") from None
        if found != mark:
            raise UserError(f"{place / out} on {host} is another folder than here: {SAME}")
        cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))
        return host

    def run(self, cell: Cell) -> bool:
        """`run_cell`, with everything that it prints in the cell's log."""
        cell.folder.mkdir(parents=True, exist_ok=True)
        with (
            open(
                cell.folder / LOG, "a", buffering=1, encoding="utf-8", errors="backslashreplace"
            ) as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            print(
                f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, {socket.gethostname()}, process {os.getpid()}"
            )
            finished = run_cell(cell, self.data)
            print("finished" if finished else f"failed: {failure(cell)}")
        return finished


def time_left(mean: float, running: Sequence[float], waiting: int) -> float:
    """Seconds until all trainings are done, if each takes `mean` seconds.

    Args:
        running: seconds since the start of each running one. waiting: those that begin when one of these ends.
    """
    free = [max(mean - seconds, 0.0) for seconds in running]
    heapq.heapify(free)
    for _ in range(waiting if free else 0):
        heapq.heapreplace(free, free[0] + mean)
    return max(free, default=0.0)


def run_on_cluster(
    address: str, plan: Plan, finished: Sequence[Cell], pictures: Sequence[int]
) -> None:
    """Run every cell that is not finished, with a line when it begins and one when it ends.

    Args:
        images: number of them in the training and the validation split.

    Raises:
        UserError: the cluster cannot be joined, or its workers do not see the folder.
    """
    todo = [cell for cell in plan.cells if cell not in finished]
    if not todo:
        return
    print(f"what a training prints goes to its {LOG} in {plan.out / 'cells'}")
    with joined(address) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        crew = Crew(ray, plan.out, len(finished), len(plan.cells))
        for cell in todo:
            crew.waiting[needs(cell.config, machines, pictures)].append(cell)
        crew.work()


@dataclass
class Member:
    """A worker as the command sees it: `host` is empty until it has started, `cell` none until it has one."""

    actor: Any
    needs: Needs
    host: str = ""
    cell: Cell | None = None
    whole: bool = False
    since: float = 0.0


class Crew:
    """All workers, and what each is at."""

    def __init__(self, ray: Any, out: Path, done: int, total: int) -> None:
        self.ray, self.out, self.done, self.total = ray, out, done, total
        self.mark = (out / LOCK).read_text(encoding="utf-8")
        self.waiting: dict[Needs, deque[Cell]] = defaultdict(deque)
        self.busy: dict[
            Any, Member
        ] = {}  # by what ends when the worker has started, or its training has ended
        self.lost: Counter[Path] = Counter()
        self.spent: list[float] = []

    def work(self) -> None:
        """Run what is waiting."""
        for asked in list(self.waiting):
            self._balance(asked)
        patient = False
        try:
            while self.busy:
                ended, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=PATIENCE)
                if ended:
                    self._turn(ended[0])
                elif not patient and not any(member.cell for member in self.busy.values()):
                    patient = True
                    print("no worker has started yet: waiting for the cluster")
        finally:
            for member in self.busy.values():
                self.ray.kill(member.actor)

    def _balance(self, asked: Needs) -> None:
        """As many workers to come as trainings wait: Ray starts those that fit, also on machines that join later."""
        coming = [
            ref for ref, member in self.busy.items() if member.needs == asked and not member.host
        ]
        for ref in coming[len(self.waiting[asked]) :]:
            self.ray.kill(self.busy.pop(ref).actor)
        for _ in range(len(self.waiting[asked]) - len(coming)):
            actor = self.ray.remote(Worker).options(**options(asked)).remote()
            self.busy[actor.start.remote(Path.cwd(), self.out, self.mark)] = Member(actor, asked)

    def _turn(self, ended: Any) -> None:
        """A worker has started, has ended its training, or is lost."""
        member = self.busy.pop(ended)
        try:
            useful = self._ended(member, self.ray.get(ended))
        except self.ray.exceptions.RayTaskError as error:  # an exception in the worker
            if member.cell is None:
                raise UserError(f"--ray: {error.cause}") from None
            write_failure(member.cell, str(error))
            useful = self._ended(member, False)
        except self.ray.exceptions.RayError as error:
            useful = self._lose(member, str(error))
        if useful and self.waiting[member.needs]:
            self._give_work(member)
        else:
            self.ray.kill(member.actor)
        self._balance(member.needs)

    def _give_work(self, member: Member) -> None:
        member.cell = cell = self.waiting[member.needs].popleft()
        member.whole, member.since = state(cell) == "new", time.monotonic()
        print(f"{_name(cell)}: begins on {member.host}")
        self.busy[member.actor.run.remote(cell)] = member

    def _ended(self, member: Member, result: Any) -> bool:
        """A worker answers: with its machine's name at the start, later with whether its training finished.

        Returns:
            Whether to give it work. Not after a failure: an error on a GPU outlives its training.
        """
        if member.cell is None:
            member.host = result
            return True
        cell, seconds = member.cell, time.monotonic() - member.since
        _appears(cell.folder / (DONE if result else ERROR), member.host)
        if result:
            self.spent.append(seconds if member.whole else read_outcome(cell).train_seconds)
        self.done += 1
        end = (
            f"finished in {duration(seconds)}"
            if result
            else f"failed: {failure(cell)}; going on with the others"
        )
        print(f"[{self.done}/{self.total}] {_name(cell)}: {end}{self._left()}")
        return bool(result)

    def _left(self) -> str:
        """The time left, for the moment in which a training has just ended."""
        now = time.monotonic()
        running = [now - member.since for member in self.busy.values() if member.cell]
        waiting = sum(map(len, self.waiting.values()))
        if not self.spent or not (running or waiting):
            return ""
        mean = sum(self.spent) / len(self.spent)
        return f", about {duration(time_left(mean, [*running, mean], waiting))} left"

    def _lose(self, member: Member, reason: str) -> bool:
        """A worker died: another one goes on with its training, unless that has happened too often."""
        cell = member.cell
        key = cell.folder if cell else self.out
        self.lost[key] += 1
        again = self.lost[key] <= RETRIES
        if cell is None and not again:
            raise UserError(
                f"--ray: workers die before they begin: {reason.strip().splitlines()[-1]}"
            )
        if cell and again:
            attempt = f"attempt {self.lost[key] + 1} of {RETRIES + 1}"
            print(f"{_name(cell)}: its worker on {member.host} died; {attempt} follows")
            self.waiting[member.needs].appendleft(cell)
        elif cell:
            end = f"its worker died {self.lost[key]} times: killed, out of memory, or the machine was lost"
            write_failure(cell, f"{reason}\n{end}")
            self._ended(member, False)
        return False


def _name(cell: Cell) -> str:
    return f"{cell.variant}, seed {cell.seed}"


def _appears(path: Path, host: str) -> None:
    """Wait for a file that another machine has written: network file systems tell of it late."""
    end = time.monotonic() + DELAY
    while not path.is_file():
        if time.monotonic() > end:
            raise UserError(f"{path}: {host} has written it, but it is not here: {SAME}")
        time.sleep(0.2)
        list(path.parent.glob("*"))  # reading a folder makes them look again
