"""Where and at which precision a network runs."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.core import distributed
from utils.core.errors import UserError, shorten

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device that the key `device` names.

    Args:
        name: `auto` is the first GPU, else Apple's MPS, else the CPU. In a distributed run,
            each process gets a different GPU.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        name = _best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device={shorten(name)}: expected auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and distributed.world_size() > 1:
        return torch.device("cuda", distributed.local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; "
            "use device=auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: not available on this machine; use device=auto")
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision that the key `precision` selects on `device`.

    Args:
        name: `auto` is bf16 where the hardware supports it, else fp32 (emulated bf16 is slower).
        device: where the network runs.

    Returns:
        "fp32", "bf16", "fp16" or "int8".

    Raises:
        UserError: fp16 on a CPU, where gradients would underflow.
    """
    if name == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("precision=fp16: needs a GPU; use precision=auto on a CPU")
    return name


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the autocast context manager for a network's forward pass."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without making the CPU wait for a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def lay_channels_last(module: nn.Module) -> None:
    """Lay out the parameters and buffers of four axes channels last; `to` fails for five."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def cached_constant(
    values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A small constant tensor, created once per device: creating one on a GPU synchronizes."""
    return _cached_constant(tuple(values), device, dtype)


@lru_cache(maxsize=256)
def _cached_constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # so that training can use it, too
        return torch.tensor(values, dtype=dtype, device=device)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> set[str]:
    """Instruction set extensions of the CPU; empty if they cannot be read (other than on Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(flags.group(1).split()) if flags else set()
