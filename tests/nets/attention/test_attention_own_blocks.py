"""Blocks of the user's own: the interface, its errors, and the one-command check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nets import attention
from nets.attention import check
from nets.attention.conformance import picture
from utils.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
OWN = """
import torch
from torch import nn

class Good(nn.Module):
    def __init__(self, channels, *, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
    def forward(self, x):
        return x * self.conv(x).sigmoid()

class Strided(nn.Module):
    def __init__(self, channels):
        super().__init__()
    def forward(self, x):
        return x[:, :, ::2]

class Pair(Strided):
    def forward(self, x):
        return x, x

class NoChannels(nn.Module):
    def __init__(self):
        super().__init__()

class Needs(Good):
    def __init__(self, channels, kernel: int):
        super().__init__(channels, kernel=kernel)

class Hidden(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convs = [nn.Conv2d(channels, channels, 1)]
    def forward(self, x):
        return self.convs[0](x)

class InPlace(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
    def forward(self, x):
        x *= 2
        return x

class OverBatch(Good):
    def forward(self, x):
        return super().forward(x) * x.softmax(0)

class Dead(Good):
    def __init__(self, channels):
        super().__init__(channels)
        self.unused = nn.Parameter(torch.randn(3))

class Fixed(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Linear(13 * 9, 13 * 9)
    def forward(self, x):
        return self.mix(x.flatten(2)).view_as(x)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_blocks.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_blocks", None)


def test_a_block_of_the_users_own_needs_no_base_class(own):
    block = attention.build({"name": "own_blocks:Good", "kernel": 5}, 16, "identity")
    x = picture(16)
    assert torch.equal(block(x), x)
    assert attention.build("own_blocks:Good", 16).training
    assert attention.parse_phi("own_blocks:Good", ["feat1"]) == {"feat1": "own_blocks:Good"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_blocks:Goodd", "phi: module 'own_blocks' has no class 'Goodd'; did you mean 'Good'?"),
        (
            "own_blocks:Strided",
            "own_blocks:Strided maps (2, 16, 13, 9) to (2, 16, 7, 9); expected one tensor",
        ),
        (
            "own_blocks:Pair",
            "own_blocks:Pair maps (2, 16, 13, 9) to tuple; expected one tensor of the same shape",
        ),
        (
            "own_blocks:NoChannels",
            "own_blocks:NoChannels: __init__ does not take the channels; expected __init__(",
        ),
        ("own_blocks:Needs", "own_blocks:Needs.kernel: a value is required, it has no default"),
        (
            {"name": "own_blocks:Good", "kernel": "3"},
            "own_blocks:Good.kernel: expected a valid integer, got '3'",
        ),
        (
            {"name": "own_blocks:Good", "kernl": 3},
            "own_blocks:Good: unknown option 'kernl'; did you mean 'kernel'?",
        ),
        (
            {"name": "own_blocks:Good", "kernel": 4},
            "own_blocks:Good fails for 16 channels: RuntimeError",
        ),
        ("own_blocks:torch", "phi: module 'own_blocks' has no class 'torch'"),
    ],
)
def test_a_users_block_with_a_mistake(own, spec, message):
    with pytest.raises(UserError) as error:
        attention.build(spec, 16)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "complaints"),
    [
        ("Good", []),
        ("Hidden", ["registers its parts"]),
        ("InPlace", ["leaves the input"]),
        ("OverBatch", ["keeps pictures apart"]),
        ("Dead", ["learns everywhere", "leaves the identity"]),
        ("Fixed", ["keeps the shape"]),
    ],
)
def test_the_check_finds_what_is_wrong(own, monkeypatch, capsys, name, complaints):
    quick = {
        key: value
        for key, value in check.CHECKS.items()
        if key not in ("compiles", "exports_to_onnx")
    }
    monkeypatch.setattr(check, "CHECKS", quick)
    assert check.check_block(f"own_blocks:{name}", 16) == (not complaints)
    failed = [
        line.split("FAILED")[0].strip()
        for line in capsys.readouterr().out.splitlines()
        if "FAILED" in line
    ]
    assert set(complaints) <= set(failed)


def test_the_check_is_one_command(own):
    command = [
        sys.executable,
        "-m",
        "nets.attention.check",
        "own_blocks:Strided",
        "--channels",
        "8",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(own), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "expected one tensor of the same shape" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("Good", 0), ("Hidden", 1)])
def test_the_check_command_reports_with_its_exit_code(own, name, code):
    command = [
        sys.executable,
        "-m",
        "nets.attention.check",
        f"own_blocks:{name}",
        "--channels",
        "8",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(own), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "keeps the shape            ok" in done.stdout


def _environment(folder):
    return {**os.environ, "PYTHONPATH": str(folder)}
