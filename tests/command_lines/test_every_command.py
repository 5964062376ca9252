"""What the commands have in common: threads, help, a machine without libGL."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

import eval as eval_cli
import export as export_cli
import predict as predict_cli
import train as train_cli
from utils.core.config import PROJECT_DIR
from utils.engine.experiment import Result

LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (eval_cli, ()),
        (predict_cli, ()),
        (export_cli, ("--format", "darknet", "--out", "a.weights")),
    ],
)
def test_threads_of_the_configuration_are_used(
    command: ModuleType,
    arguments: Sequence[str],
    trained: Result,
    call: Callable[..., int],
):
    torch.set_num_threads(2)
    assert call(command, "--weights", trained.run, *arguments) == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "command",
    [
        "eval",
        pytest.param("train", marks=pytest.mark.slow),
        pytest.param("predict", marks=pytest.mark.slow),
    ],
)
def test_a_machine_without_libgl_is_told_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch
):
    Path("fake").mkdir()
    Path("fake/cv2.py").write_text(f"raise ImportError({LIBGL!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(Path("fake").resolve()))
    arguments = ["--config", "shapes.yaml"] if command == "train" else ["--weights", "a.pt"]
    done = subprocess.run(
        [sys.executable, PROJECT_DIR / f"{command}.py", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr and "pip install opencv-python-headless" in done.stderr


def test_help_answers_at_once_without_the_libraries(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys
):
    for name in ("cv2", "torch", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    for command in (train_cli, eval_cli, predict_cli, export_cli):
        assert call(command, "--help") == 0
        assert "examples:" in capsys.readouterr().out
