"""A short run of the fuzzer, and what it must not miss."""

import mmap
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.robustness import fuzz
from tests.robustness.kinds import KINDS, Kind
from utils.core.errors import UserError


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A load that takes too long is found soon; the handler of the signal is restored."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    monkeypatch.setattr(fuzz, "STUCK", 30.0)
    before = signal.getsignal(signal.SIGPROF)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuzz, "SECONDS", 30.0)
    monkeypatch.setattr(fuzz, "STUCK", 120.0)
    kinds = fuzz.make_kinds(list(KINDS), tmp_path)
    report = fuzz.Fuzzer(kinds, seed=0, out=tmp_path / "found").run(2500, 600)
    assert not report.findings
    assert report.loads >= 2500 and all(tally.loads for tally in report.tallies.values())
    assert 0.2 * report.loads < sum(tally.refused for tally in report.tallies.values())
    assert sum(tally.refused for tally in report.tallies.values()) < 0.8 * report.loads


def computes_on(path: Path) -> None:
    """A reader that hides all errors."""
    try:
        while True:
            pass
    except Exception:
        raise UserError("hidden") from None


WAITS = "ended with -9"
FAULTS: dict[str, Callable[[Path], object]] = {
    "KeyError: 'a'": lambda path: {}["a"],
    "MemoryError": lambda path: bytearray(2 * fuzz.MEMORY),
    "OSError": lambda path: mmap.mmap(-1, 2 * fuzz.MEMORY),
    "TooSlow": computes_on,
    WAITS: lambda path: time.sleep(100),
    f"ended with -{signal.SIGSEGV:d}": lambda path: os.kill(os.getpid(), signal.SIGSEGV),
    "AssertionError: two": lambda path: (_ for _ in ()).throw(UserError("two\nlines")),
    "AssertionError: an object": lambda path: (_ for _ in ()).throw(UserError("an object at 0x1")),
}


@pytest.mark.parametrize("summary", FAULTS)
def test_a_fault_is_found_kept_and_the_run_goes_on(
    summary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if summary == WAITS:
        monkeypatch.setattr(fuzz, "STUCK", 1.0)

    def load(path: Path) -> None:
        if b"x" in path.read_bytes():
            FAULTS[summary](path)

    kind = Kind(tmp_path / "a", load, (b"1234 x",))
    numbers = [n for n in range(9) if b"x" in fuzz.damaged("any", kind, 3, n)][:2]
    report = fuzz.Fuzzer({"any": kind}, 3, tmp_path / "found").run(numbers[-1] + 2, 60)
    [finding] = report.findings
    assert summary in finding and report.findings[finding] >= len(numbers) == 2
    assert report.loads == numbers[-1] + 2
    assert {f"any.3.{number}" for number in numbers} <= {
        path.name for path in (tmp_path / "found").iterdir()
    }


def test_the_same_seed_gives_the_same_files(tmp_path: Path):
    kinds = fuzz.make_kinds(["config", "voc_xml", "trial_json"], tmp_path)
    for name, kind in kinds.items():
        files = [fuzz.damaged(name, kind, 0, number) for number in range(40)]
        assert files == [fuzz.damaged(name, kind, 0, number) for number in range(40)]
        assert len(set(files)) > 30


def test_a_kept_file_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "class_list.0.7"
    path.write_text("cat\ncat\n")
    (tmp_path / "work").mkdir()
    fuzz.replay(path, tmp_path / "work")
    assert "class 'cat' is listed twice" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fuzz", "soak", "kill_chains"])
def test_the_commands_start(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    module = f"tests.robustness.{command}"
    monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of a second copy
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    assert f"usage: python -m {module}" in capsys.readouterr().out
