"""One compare.py at a time in a folder; the lock goes with its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.compare.lock import LOCK, locked
from utils.compare.plan import Plan
from utils.compare.running import compare
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
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_command_is_refused_until_the_first_one_is_killed(
    tmp_path: Path, holder: subprocess.Popen
):
    with (
        pytest.raises(
            UserError, match=rf"^{tmp_path}: .*process {holder.pid}\): wait, or give another --out$"
        ),
        locked(tmp_path),
    ):
        pytest.fail("two at once")
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        assert str(holder.pid) not in (tmp_path / LOCK).read_text(encoding="utf-8")


def test_other_folders_are_free(tmp_path: Path, holder: subprocess.Popen):
    (tmp_path / "other").mkdir()
    with locked(tmp_path / "other"):
        pass


def test_the_lock_ends_with_the_block_also_by_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


def test_compare_keeps_the_lock_while_it_works(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    refused = []

    def while_it_runs(*args: object) -> None:
        monkeypatch.undo()
        with pytest.raises(UserError, match="is at work there already"):
            compare(copied, [])
        refused.append(True)

    monkeypatch.setattr("utils.compare.running.run_cells", while_it_runs)
    compare(copied, [])
    assert refused
