"""The command that runs exported blocks in runtimes: verdicts, the page, exit codes."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from nets import runtime_table
from nets.analysis import runtime_support
from nets.analysis.runtime_support import Outputs, Runtime, Verdict, check_block
from utils.core.errors import UserError

AGREES = Verdict(1e-5, 1e-7)


@pytest.mark.parametrize(
    ("verdict", "code", "cell"),
    [
        (AGREES, 0, "| 0.00001 | 0.00001 |"),
        (Verdict(2e-3, 1e-7), 1, "differs by 0.002 px in boxes"),
        (Verdict(float("nan"), 0.0), 1, "| no |"),
        (Verdict(reason="no such layer"), 1, "- se, OpenCV: refused: no such layer"),
    ],
)
def test_the_exit_code_is_the_verdict(
    verdict: Verdict,
    code: int,
    cell: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: Callable[..., int],
) -> None:
    pytest.importorskip("onnxruntime")
    found = {"onnxruntime": AGREES, "opencv": verdict}
    monkeypatch.setattr(runtime_table, "check_block", lambda *arguments: found)
    out = tmp_path / "page.md"
    arguments = ["--blocks", "se", "--runtimes", "onnxruntime", "opencv", "--out", str(out)]
    assert call(runtime_table, *arguments) == code
    assert cell in out.read_text() and f"OpenCV {cv2.__version__}" in out.read_text()


def test_a_runtime_that_may_refuse_blocks_fails_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: Callable[..., int]
) -> None:
    def run(path: Path, canvases: torch.Tensor) -> Outputs:
        raise UserError(f"{path}: no such layer")

    runtime = Runtime("Other", ("torch",), ".onnx", run, takes_all=False)
    absent = Runtime("Absent", ("no_such_package",), ".onnx", run)
    monkeypatch.setattr(runtime_support, "RUNTIMES", {"other": runtime, "absent": absent})
    monkeypatch.setattr(runtime_support, "_write", lambda network, config, path, suffix: path)
    assert call(runtime_table, "--blocks", "se", "--size", "32") == 0
    page = capsys.readouterr().out
    assert "| se | no |" in page and "- se, Other: refused: no such layer" in page
    assert "- absent: not installed: pip install no-such-package" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtimes", "opencvv"], "--runtimes opencvv: no such runtime; did you mean 'opencv'?"),
        (["--blocks", "ecca"], "unknown attention block 'ecca'; did you mean 'eca'?"),
        (["--size", "100"], "--size: expected a multiple of 32"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(runtime_table, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("block", ["cbam", "stn"])
def test_blocks_run_in_every_runtime(block: str) -> None:
    runtimes = {
        name: runtime for name, runtime in runtime_support.RUNTIMES.items() if runtime.takes_all
    }
    for name, verdict in check_block(block, runtimes, 96).items():
        assert verdict.agrees, f"{name}: {verdict}"
