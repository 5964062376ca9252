"""The hardware and library versions that a measurement was made with."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import torch

from utils.core.errors import counted

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "openvino",
)


def cpu_name() -> str:
    """Model name of the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model.group(1) if model else platform.processor() or platform.machine()


def cpu_count() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU with its cores and PyTorch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores, threads = cpu_count(), torch.get_num_threads()
    return f"{cpu_name()}, {counted(cores, 'cores')}, {counted(threads, 'threads')}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of those `LIBRARIES` that are installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
