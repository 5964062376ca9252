"""A user's mistake: one line on stderr, exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.errors import UserError, nearest, run_command

ROOT = Path(__file__).resolve().parents[3]


def test_nearest_suggests_or_lists() -> None:
    assert nearest("cbm", ["se", "cbam", "eca"]) == "; did you mean 'cbam'?"
    assert nearest("zzz", ["se", "cbam"]) == "; expected one of: se, cbam"
    assert nearest("zzz", []) == ""
    assert nearest(3, [1, 2]) == "; expected one of: 1, 2"  # type: ignore[arg-type, list-item]


def test_a_users_mistake_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("config.yaml:\n  bad\tkey")

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: config.yaml: bad key\n")


def test_ctrl_c_is_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_bugs_keep_their_traceback_and_success_returns() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(bug)
    assert run_command(lambda: None) is None  # type: ignore[func-returns-value]


def test_a_closed_pipe_ends_quietly() -> None:
    code = (
        "from utils.core.errors import run_command\n"
        "def main():\n"
        "    for _ in range(100000): print('many words on every line')\n"
        "run_command(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
