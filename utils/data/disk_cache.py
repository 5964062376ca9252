"""Canvases in a file that several processes map into memory.

The file is written under another name and then renamed, so no lock is needed. It holds `count`
canvases uint8 `(height, width, 3)`, then one byte per image: the state of the image's file. Its
name is a hash of everything that determines the content, so a changed image, input size or decoder
leads to another file.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.core.outputs import new_file
from utils.data.sample import Sample

UNUSED_DAYS = 14  # files not opened for this long are removed
VERSION = 2  # version of the file layout


def cache_key(samples: Sequence[Sample], input_size: tuple[int, int]) -> str:
    """Hash of the images (path, modification time, size), their order, the input size and the
    version of the decoder.
    """
    versions = (VERSION, cv2.__version__, torch.__version__, input_size)
    digest = hashlib.sha256(repr(versions).encode())
    for sample in samples:
        name, modified, size = str(sample.path), 0, 0
        if sample.draw is None:
            name = str(sample.path.absolute())
            with suppress(OSError):
                status = sample.path.stat()
                modified, size = status.st_mtime_ns, status.st_size
        digest.update(repr((name, sample.width, sample.height, modified, size)).encode())
    return digest.hexdigest()[:32]


def is_complete(path: Path, count: int, input_size: tuple[int, int]) -> bool:
    """Whether `path` holds `count` canvases of `input_size` (height, width)."""
    height, width = input_size
    return path.is_file() and path.stat().st_size == count * (height * width * 3 + 1)


def write(path: Path, decoded: Iterable[tuple[np.ndarray, int]]) -> None:
    """Write canvases and states, and remove unused files from the folder.

    `path` appears only when it is complete.

    Raises:
        WriteError: no space or no permission.
    """
    _remove_unused(path.parent)
    states: list[int] = []
    # written, not mapped, so that a full disk is an error and not a SIGBUS
    with new_file(path) as part, open(part, "wb") as file:
        for canvas, state in decoded:
            file.write(canvas.tobytes())
            states.append(state)
        file.write(bytes(states))


def open_shared(
    path: Path, count: int, input_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Map a complete file.

    Returns:
        canvases uint8 `(count, height, width, 3)`, read-only; states uint8 `(count,)`.
    """
    with suppress(OSError):
        os.utime(path)
    content = np.memmap(path, np.uint8, "r")
    end = len(content) - count
    return content[:end].reshape(count, *input_size, 3), np.array(content[end:])


def _remove_unused(folder: Path) -> None:
    limit = time.time() - UNUSED_DAYS * 86400
    for path in (*folder.glob("*.bin"), *folder.glob(".*.part.bin")):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
