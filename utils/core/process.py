"""What a command sets for its whole process, in one place: threads, kernels, memory, where modules are looked for."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of glibc's mallopt, from malloc.h
NEVER = 2**31 - 1


def configure_process(threads: int = 0) -> None:
    """Set up the process for a command; called once its configuration is known.

    Args:
        threads: CPU threads that PyTorch, and the backends after it, compute with; 0: PyTorch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    working_directory = str(Path.cwd())
    if (
        working_directory not in sys.path
    ):  # attention blocks of the user's own are named package.module:Class
        sys.path.append(working_directory)


def configure_training(device: torch.device) -> None:
    """Set up the process for training steps on `device`, over and over with the same shapes."""
    torch.backends.cudnn.benchmark = True  # the search for fast kernels pays
    if device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, on Linux with glibc; elsewhere nothing.

    A training step on a CPU frees gigabytes and asks for them again; by default glibc returns blocks of this size
    to the kernel, which then hands them out page by page, cleared: up to 100,000 page faults per step.
    """
    with suppress(OSError, AttributeError):  # no such library, or not glibc's malloc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
