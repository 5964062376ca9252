"""Expected errors of a command: one line on stderr and an exit code."""

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.cli import run_command
from utils.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def test_a_user_error_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("config.yaml:\n  bad\tkey")

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: config.yaml: bad key\n")


def test_long_words_and_control_characters_are_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        raise UserError(f"--source {'x' * 10**6}: \x1b[31mred no such file")

    with pytest.raises(SystemExit):
        run_command(main)
    error = capsys.readouterr().err
    assert error.startswith("error: --source xxx") and len(error) < 300
    assert error.endswith(": \\x1b[31mred no such file\n")


def test_ctrl_c_is_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


CLOSED = """
import os, sys
from utils.core.cli import run_command

def main():
    with open("out.txt", "w") as file:
        os.write(1, b"of a library")
        os.write(2, b"of a library")
        sys.stdout.write("of ours")
        sys.stderr.write("of ours")
        file.write("content")

run_command(main)
"""


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize("closing", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_take_nothing_and_no_file_takes_their_place(closing: str, tmp_path: Path):
    command = f"{shlex.join([sys.executable, '-c', CLOSED])} {closing}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "out.txt").read_text() == "content"


def test_bugs_keep_their_traceback_and_success_returns() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(bug)
    assert run_command(lambda: None) is None  # type: ignore[func-returns-value]


def test_modules_of_the_working_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_module.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def main() -> None:
        importlib.import_module("users_module")
        del sys.modules["users_module"]

    run_command(main)


def test_a_closed_pipe_exits_silently() -> None:
    code = (
        "from utils.core.cli import run_command\n"
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("No module named 'pycocotools'", name="pycocotools"),
            "pip install -r requirements.txt",
        ),
        (
            ImportError("libgthread-2.0.so.0: cannot open shared object file: No such file"),
            "opencv-python-headless",
        ),
    ],
)
def test_a_library_that_is_missing(error: ImportError, words: str, capsys):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    captured = capsys.readouterr().err
    assert end.value.code == 2 and words in captured and captured.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'utils.engine'", name="utils.engine"),
        ModuleNotFoundError("No module named 'utils.nothing'", name="utils.nothing"),
        RuntimeError("a mistake in the program"),
    ],
)
def test_a_mistake_in_the_program_is_not_hidden(error: Exception):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_command(main)


def test_any_class_name_can_be_printed(tmp_path: Path):
    code = "from utils.core.cli import run_command; run_command(lambda: print('\\u72d7 done'))"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0 and done.stdout == "\\u72d7 done\n"
