"""Process-wide settings, all in one place: threads, logging, import path, kernels, memory."""

import ctypes
import logging
import os
import sys
import warnings
from contextlib import suppress

import cv2
import torch

from utils.core.cli import search_working_directory
from utils.core.distributed import is_main_process
from utils.core.environment import cpu_count

# Parameters of glibc's mallopt, from malloc.h
TRIM_THRESHOLD = -1
MMAP_MAX = -4
NEVER = 2**31 - 1


def configure_process(threads: int = 0) -> None:
    """Set up the process for a command, once its configuration is known.

    Args:
        threads: CPU threads of PyTorch and of the backends that follow it; 0: PyTorch's default.
    """
    if threads:
        torch.set_num_threads(threads)
    if threads > cpu_count():
        print(f"note: threads={threads}, but only {cpu_count()} cores: fewer threads are faster")
    search_working_directory()  # for attention blocks outside the project, `package.module:Class`
    silence_opencv()
    silence_pillow()
    if not is_main_process():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the process ends


def configure_training(device: torch.device) -> None:
    """Set up the process for training, which repeats the same shapes."""
    torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        keep_freed_memory()


def silence_opencv() -> None:
    """Turn off the logs of OpenCV and its FFmpeg: our own errors take one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def silence_pillow() -> None:
    """Turn off the warnings of Pillow, such as those about odd metadata and large images."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else they go to stderr


def keep_freed_memory() -> None:
    """Keep memory that is freed in this process (Linux with glibc only).

    A training step on a CPU allocates and frees gigabytes. By default, glibc returns blocks of
    this size to the kernel, which hands them out again page by page and cleared: up to
    100,000 page faults per step.
    """
    with suppress(OSError, AttributeError):  # no such library, or not glibc's malloc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
