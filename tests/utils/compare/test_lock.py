"""One compare.py at a time in a folder; the lock goes with its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.compare import workflow
from utils.compare.lock import locked, read_holder
from utils.compare.plan import Plan
from utils.compare.workflow import compare
from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from utils.compare.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_command_is_refused_until_the_first_one_is_killed(
    tmp_path: Path, holder: subprocess.Popen
):
    (tmp_path / "other").mkdir()
    with locked(tmp_path / "other"):  # other folders are free
        pass
    signature = read_holder(tmp_path)
    message = rf"^{tmp_path}: .*process {holder.pid}\): wait, or give another --out$"
    with pytest.raises(UserError, match=message), locked(tmp_path):
        pytest.fail("two at once")
    assert read_holder(tmp_path) == signature
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        assert str(holder.pid) not in read_holder(tmp_path)


def test_the_lock_ends_with_the_block_also_by_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unsupported(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", unsupported)
    with locked(tmp_path):
        assert read_holder(tmp_path)


def test_compare_keeps_the_lock_while_it_works(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    refused = []

    def while_it_runs(*args: object) -> None:
        monkeypatch.undo()
        with pytest.raises(UserError, match=r"another compare\.py is working there"):
            compare(copied, [])
        refused.append(True)

    monkeypatch.setattr(workflow, "run_trials", while_it_runs)
    monkeypatch.setattr(workflow, "_report", lambda *args: None)
    compare(copied, [])
    assert refused
