"""One command at a time in a folder; the lock goes with its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError
from utils.core.folder_lock import locked, read_holder

HOLD = """
import sys, time
from pathlib import Path
from utils.core.folder_lock import locked
with locked(Path(sys.argv[1]), "is training", "wait"):
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
    with locked(tmp_path / "other", "is training", "wait"):  # other folders are free
        pass
    signature = read_holder(tmp_path)
    message = rf"^{tmp_path}: .*process {holder.pid}\): wait$"
    with pytest.raises(UserError, match=message), locked(tmp_path, "is training", "wait"):
        pytest.fail("two at once")
    assert read_holder(tmp_path) == signature
    holder.kill()
    holder.wait()
    with locked(tmp_path, "is training", "wait"):
        assert str(holder.pid) not in read_holder(tmp_path)


def test_the_lock_ends_with_the_block_also_by_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError), locked(tmp_path, "is training", "wait"):
        raise RuntimeError
    with locked(tmp_path, "is training", "wait"):
        pass


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unsupported(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", unsupported)
    with locked(tmp_path, "is training", "wait"):
        assert read_holder(tmp_path)
