"""Canvases in a file that several trainings map into memory: written aside, then renamed, so no lock is needed.

A file holds `count` canvases uint8 `(h, w, 3)`, then one byte an image: the state of its file. Its name is a hash of
everything that the content follows from, so a changed image, size or decoder leads to another file.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.data.sample import Sample

UNUSED_DAYS = 14  # files that nobody opened for so long are removed


def key(samples: Sequence[Sample], size: tuple[int, int]) -> str:
    """Hash of the images (path, time of change, bytes), their order, the input size and the decoder's version."""
    digest = hashlib.sha256(repr((2, cv2.__version__, torch.__version__, size)).encode())
    for sample in samples:
        stamp: tuple[int, ...] = (0, 0)
        if sample.draw is None:
            with suppress(OSError):
                status = sample.path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
        name = str(sample.path if sample.draw else sample.path.absolute())
        digest.update(repr((name, sample.width, sample.height, *stamp)).encode())
    return digest.hexdigest()[:32]


def is_complete(path: Path, count: int, size: tuple[int, int]) -> bool:
    """Whether `path` holds `count` canvases of `size` (height, width)."""
    return path.is_file() and path.stat().st_size == count * (size[0] * size[1] * 3 + 1)


def write(path: Path, decoded: Iterable[tuple[np.ndarray, int]]) -> None:
    """Write canvases and states; the file appears only when it is complete. Removes files that are out of use.

    Raises:
        OSError: no space, no permission.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unused(path.parent)
    states: list[int] = []
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(
            handle, "wb"
        ) as file:  # written through, not mapped: a full disk is an error, not a SIGBUS
            for canvas, state in decoded:
                file.write(canvas.tobytes())
                states.append(state)
            file.write(bytes(states))
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def open_shared(path: Path, count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Map a complete file: canvases `(count, h, w, 3)`, read-only, and states `(count,)`, both uint8."""
    with suppress(OSError):
        os.utime(path)
    flat = np.memmap(path, np.uint8, "r")
    pictures = flat[: -count or None].reshape(count, *size, 3)
    return pictures, np.array(flat[len(flat) - count :])


def _remove_unused(folder: Path) -> None:
    limit = time.time() - UNUSED_DAYS * 86400
    for path in (*folder.glob("*.bin"), *folder.glob("*.part")):
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
