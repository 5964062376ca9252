"""Damaged files of every kind: whatever is in a file, it is read or refused in one line.

    python -m tests.robustness.fuzz [--loads N] [--seconds S] [--seed K] [--only NAME ...]
    python -m tests.robustness.fuzz --replay FILE

Every load reads a valid file of `kinds` after a few of the damages of `mutations`; seed, kind and
number determine it. Anything but success or a `UserError` of one line is a finding, as is a load
that takes too long, asks for too much memory, or ends the process. The file of a finding is kept
in `--out`, and the exit code is 1 if there is one.

Damage is drawn at random, without feedback from coverage: atheris, the fuzzer of Python that has
it, has no wheels for most of the Pythons that this program supports.
"""

import argparse
import contextlib
import faulthandler
import io
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch

from tests.robustness.internals import INTERNALS
from tests.robustness.kinds import KINDS, Kind
from tests.robustness.mutations import mutate_bytes, mutate_text, mutate_value
from utils.core.errors import UserError
from utils.core.process import silence_opencv, silence_pillow

SECONDS = 10.0  # of computing, for a load
STUCK = 60.0  # seconds until a load counts as one that waits, or that no signal interrupts
MEMORY = 4 * 2**30  # address space for a load, bytes
ROUND = 1000  # loads of a kind in a process
FAST_FOLDER = Path("/dev/shm")  # in memory
PROGRESS = 60.0  # seconds between two lines of progress
KEPT = 3  # files of a kind of finding


class TooSlow(BaseException):
    """A load took longer than `SECONDS`; not an `Exception`, so that no reader hides it."""


@dataclass
class Tally:
    """The loads of a kind.

    Attributes:
        loads: number of loads.
        refused: number of those that ended in a `UserError`.
        seconds: time for damage and loads.
    """

    loads: int = 0
    refused: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    """What a run found.

    Attributes:
        tallies: kind -> its loads.
        findings: kind and summary -> number of such findings.
    """

    tallies: dict[str, Tally]
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def loads(self) -> int:
        return sum(tally.loads for tally in self.tallies.values())

    def __str__(self) -> str:
        seconds = sum(tally.seconds for tally in self.tallies.values())
        rate = self.loads / max(seconds, 1e-9)
        findings = self.findings.total()
        return f"{self.loads:,} loads, {rate:,.0f} per second; {findings} findings"

    def table(self) -> str:
        lines = [f"{'kind':<14}{'loads':>10}{'refused':>10}{'per second':>12}"]
        for name, tally in self.tallies.items():
            rate = tally.loads / max(tally.seconds, 1e-9)
            lines.append(f"{name:<14}{tally.loads:>10,}{tally.refused:>10,}{rate:>12,.0f}")
        lines.append(str(self))
        return "\n".join(lines)


# one load


def damaged(name: str, kind: Kind, seed: int, number: int) -> bytes:
    """The content of the file that a load reads."""
    rng = random.Random(f"{name} {seed} {number}")
    mutate = rng.choice((mutate_bytes, *[mutate_text] * (2 * kind.is_text)))
    times = rng.choice((1, 1, 1, 2, 4))
    if kind.values and rng.random() < 0.6:
        value = rng.choice(kind.values)
        for _ in range(times):
            value = mutate_value(rng, value)
        return kind.write(value)
    content = rng.choice(kind.files)
    for _ in range(times):
        content = mutate(rng, content)
    return content


def attempt(kind: Kind) -> str | None:
    """Read the file; return the message of a `UserError`.

    Raises:
        AssertionError: the message is not one line for the user.
    """
    with _time_limit():
        try:
            kind.load(kind.path)
            return None
        except UserError as error:
            message = str(error)
    assert message and "\n" not in message and not INTERNALS.search(message), message
    return message


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TooSlow


def _summary(error: BaseException) -> str:
    """Where an error comes from, and its first line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    last = own[-1] if own else frames[-1]
    message = (str(error).splitlines() or [""])[0][:150]
    return f"{Path(last.filename).name}:{last.lineno}: {type(error).__name__}: {message}"


# many loads, in a process that may end


def _limit_process() -> None:
    """What holds in a process that reads: time, memory, silence."""
    faulthandler.disable()  # the process that reports says it in one line
    signal.signal(signal.SIGPROF, _stop)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, -1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, -1))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _work(
    name: str, kind: Kind, seed: int, numbers: range, end: float, current: Any, pipe: Connection
) -> None:
    """Make loads until `end`; send findings, and finally the numbers of loads and refusals."""
    _limit_process()
    loads = refused = 0
    for number in numbers:
        if time.monotonic() > end:
            break
        current.value = number
        kind.path.write_bytes(damaged(name, kind, seed, number))
        loads += 1
        try:
            refused += attempt(kind) is not None
        except (Exception, TooSlow) as error:
            pipe.send((number, _summary(error)))
    pipe.send((loads, refused))


class Fuzzer:
    """Makes loads of several kinds.

    Args:
        kinds: the kinds by name.
        seed: determines the damage.
        out: folder for the files of findings.
    """

    def __init__(self, kinds: Mapping[str, Kind], seed: int, out: Path) -> None:
        self.kinds = kinds
        self.seed = seed
        self.out = out
        self.report = Report({name: Tally() for name in kinds})
        self.next = dict.fromkeys(kinds, 0)

    def run(self, loads: int, seconds: float) -> Report:
        """Make loads, of all kinds in turns."""
        end = time.monotonic() + seconds
        total = sum(kind.share for kind in self.kinds.values())
        wanted = {name: max(1, loads * kind.share / total) for name, kind in self.kinds.items()}
        shown = time.monotonic()
        while True:
            if time.monotonic() > shown + PROGRESS:
                shown = time.monotonic()
                print(self.report, flush=True)
            left = {name: round(wanted[name]) - self.next[name] for name in self.kinds}
            if max(left.values()) <= 0 or time.monotonic() > end:
                return self.report
            for name, kind in self.kinds.items():
                count = min(left[name], max(1, round(ROUND * kind.share)))
                if count > 0:
                    self._run_kind(name, range(self.next[name], self.next[name] + count), end)

    def _run_kind(self, name: str, numbers: range, end: float) -> None:
        """Make loads of a kind in a new process; if one ends it, go on after that."""
        start = time.monotonic()
        while numbers and time.monotonic() < end:
            numbers = self._run_process(name, numbers, end)
        self.next[name] = numbers.start
        self.report.tallies[name].seconds += time.monotonic() - start

    def _run_process(self, name: str, numbers: range, end: float) -> range:
        """Make loads in a new process; return the numbers of those that are left."""
        context = multiprocessing.get_context("fork")
        current = context.Value("q", numbers.start, lock=False)
        receiver, sender = context.Pipe(duplex=False)
        words = (name, self.kinds[name], self.seed, numbers, end, current, sender)
        process = context.Process(target=_work, args=words)
        process.start()
        sender.close()
        tally = self.report.tallies[name]
        try:
            while True:
                before = current.value
                if not receiver.poll(STUCK):
                    if current.value != before:
                        continue
                    process.kill()
                number, result = receiver.recv()
                if isinstance(result, int):
                    tally.loads += number
                    tally.refused += result
                    return range(numbers.start + number, numbers.stop)
                self._keep(name, number, result)
        except EOFError:
            process.join()
            self._keep(name, current.value, f"the process ended with {process.exitcode}")
            tally.loads += current.value + 1 - numbers.start
            return range(current.value + 1, numbers.stop)
        finally:
            process.join()

    def _keep(self, name: str, number: int, summary: str) -> None:
        """Count a finding, and write its file if it is among the first of its kind."""
        key = f"{name}: {summary}"
        self.report.findings[key] += 1
        if self.report.findings[key] > KEPT:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.{self.seed}.{number}"
        path.write_bytes(damaged(name, self.kinds[name], self.seed, number))
        print(f"{key}\n  python -m tests.robustness.fuzz --replay {path}", flush=True)


def make_kinds(names: list[str], folder: Path) -> dict[str, Kind]:
    """The kinds of these names, each in a folder of its own."""
    kinds = {}
    for name in names:
        (folder / name).mkdir()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            kinds[name] = KINDS[name](folder / name)
    return kinds


def replay(path: Path, folder: Path) -> int:
    """Read the file of a finding in this process, and show what happens."""
    name = path.name.partition(".")[0]
    kind = make_kinds([name], folder)[name]
    kind.path.write_bytes(path.read_bytes())
    print(attempt(kind) or "read")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz")
    parser.add_argument("--loads", type=int, default=20_000, help="number of loads of all kinds")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="for files of findings")
    parser.add_argument("--replay", type=Path, help="read the file of a finding")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    silence_opencv()
    silence_pillow()
    signal.signal(signal.SIGPROF, _stop)
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None) as folder:
        if args.replay:
            return replay(args.replay, Path(folder))
        kinds = make_kinds(args.only, Path(folder))
        fuzzer = Fuzzer(kinds, args.seed, args.out)
        with contextlib.suppress(KeyboardInterrupt):
            fuzzer.run(args.loads, args.seconds)
    print(fuzzer.report.table())
    return 1 if fuzzer.report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
