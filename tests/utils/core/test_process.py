"""What a command sets for its process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.core import process
from utils.core.environment import cpu_count


def test_threads_are_set_where_they_are_asked_for():
    process.configure_process(2)
    assert torch.get_num_threads() == 2
    process.configure_process(0)
    assert torch.get_num_threads() == 2


def test_more_threads_than_cores_are_told(capsys: pytest.CaptureFixture[str]):
    threads = torch.get_num_threads()
    process.configure_process(cpu_count())
    assert not capsys.readouterr().out
    process.configure_process(cpu_count() + 1)
    torch.set_num_threads(threads)
    message = f"note: threads={cpu_count() + 1}, but only {cpu_count()} cores"
    assert capsys.readouterr().out.startswith(message)


def test_modules_of_the_working_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    process.configure_process()
    process.configure_process()
    assert sys.path.count(str(tmp_path)) == 1


FAULTS = """
import resource
import sys

import torch

from utils.core.process import keep_freed_memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.ones(16 * 2**20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
faults(20)
print(faults(8))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_freed_memory_is_kept() -> None:
    """In a process of its own, as the setting cannot be undone; without it, memory is returned."""
    counts = [
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("keep", "as it is")
    ]
    assert counts[0] < 100 < counts[1]


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(process.ctypes, "CDLL", missing)
    process.keep_freed_memory()
