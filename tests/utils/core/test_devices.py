"""Where and in which precision: the choice of `auto`, and devices that are not there."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from utils.core import devices
from utils.core.devices import autocast, pick_device, pick_precision
from utils.core.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")]
)
def test_auto_takes_the_best_there_is(
    gpus: int, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus, mps)
    assert pick_device("auto") == torch.device(expected)


def test_named_devices_are_taken_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2, True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 1)])
def test_absent_devices_end_in_one_line(
    name: str, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus)
    with pytest.raises(UserError, match=f"device={name}: .*device=auto$") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("CPU\t: 0\nflags\t\t: fpu sse avx512f avx512_bf16\nbugs\t\t: x\n", "bf16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bf16"),
        ("Features\t: fp asimd i8mm bf16\n", "bf16"),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", "fp32"),  # bf16 would be emulated
        ("", "fp32"),
    ],
)
def test_auto_precision_follows_the_processor(
    cpuinfo: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: cpuinfo)
    assert pick_precision("auto", CPU) == expected


def test_auto_precision_where_the_processor_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(self: Path, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert pick_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_precision_follows_the_gpu(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", CUDA) == expected


def test_named_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_bf16", lambda device: False)
    assert pick_precision("bf16", CPU) == "bf16" and pick_precision("fp32", CUDA) == "fp32"
    assert pick_precision("fp16", CUDA) == "fp16"
    with pytest.raises(UserError, match="precision=fp16: needs a GPU"):
        pick_precision("fp16", CPU)


def test_autocast_computes_in_the_precision_it_names() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with autocast("bf16", CPU):
        assert layer(x).dtype == torch.bfloat16
    assert isinstance(autocast("fp32", CPU), nullcontext)
    with autocast("fp32", CPU):
        assert layer(x).dtype == torch.float32
