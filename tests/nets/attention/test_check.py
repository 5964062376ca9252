"""`python -m nets.attention.check`: the verdicts, the exit codes, and CONTRIBUTING.md's example."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nets.attention import blocks, check, registry

HERE = Path(__file__).parent  # holds user_blocks.py
ROOT = HERE.parents[2]


@pytest.fixture
def quick_checks(monkeypatch):
    """Leave out the checks that take seconds."""
    slow = ("compiles", "exports_to_onnx")
    quick = {name: function for name, function in check.CHECKS.items() if name not in slow}
    monkeypatch.setattr(check, "CHECKS", quick)


@pytest.mark.usefixtures("quick_checks")
@pytest.mark.parametrize(
    ("name", "complaints"),
    [
        ("Good", []),
        ("Hidden", ["registers its parts"]),
        ("InPlace", ["leaves the input"]),
        ("OverBatch", ["keeps images apart"]),
        ("Dead", ["learns everywhere", "leaves the identity"]),
        ("Fixed", ["keeps the shape"]),
    ],
)
def test_the_check_finds_what_is_wrong(capsys, name, complaints):
    assert check.check_block(f"user_blocks:{name}", 16) == (not complaints)
    lines = capsys.readouterr().out.splitlines()
    failed = {line.split("FAILED")[0].strip() for line in lines if "FAILED" in line}
    assert set(complaints) <= failed


@pytest.mark.usefixtures("quick_checks")
def test_the_example_in_contributing_passes(tmp_path, monkeypatch, capsys):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_block.py").write_text(code.group(1), encoding="utf-8")
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    module = importlib.import_module("nets.attention.blocks.my_block")
    try:
        assert check.check_block({"name": "my_block", "reduction": 8}, 64), capsys.readouterr().out
        assert module.__doc__.count("arXiv") == 1
    finally:
        del sys.modules["nets.attention.blocks.my_block"]


def test_a_block_that_cannot_be_built_is_one_line():
    result = _run("user_blocks:Strided")
    assert result.returncode == 2
    assert "expected one tensor of the same shape" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("Good", 0), ("Hidden", 1)])
def test_the_exit_code_is_the_verdict(name, code):
    result = _run(f"user_blocks:{name}")
    assert result.returncode == code, result.stdout + result.stderr
    assert "keeps the shape            ok" in result.stdout


def _run(block):
    """Run the command in the folder of the user's blocks."""
    command = [sys.executable, "-m", "nets.attention.check", block, "--channels", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
