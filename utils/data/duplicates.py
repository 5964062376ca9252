"""Duplicate images, by path or by content, within a split or across splits (a leak)."""

import io
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from utils.core.inputs import ReadError, hash_content, is_outage, read_with
from utils.data.sample import Sample

TAIL = 4096  # bytes compared first; compressed images differ at the end rather than at the start


def identical_files(sizes: Mapping[Path, int]) -> list[tuple[Path, Path]]:
    """Find files with the same content. Whole files are read only if size and last bytes agree.

    Args:
        sizes: file -> its size in bytes.

    Returns:
        (earlier, later) for every file with the same bytes as an earlier one.

    Raises:
        ReadError: the storage is out of reach.
    """
    same_size = _groups(sizes, sizes.__getitem__)
    same_tail = [part for group in same_size for part in _groups(group, _reader(_tail))]
    identical = [part for group in same_tail for part in _groups(group, _reader(hash_content))]
    return [(original, path) for original, *others in identical for path in others]


def find_leaks(train: Sequence[Sample], val: Sequence[Sample]) -> list[tuple[Path, Path]]:
    """Find validation images that are also training images.

    Returns:
        (training image, validation image): the same file, or two files with the same bytes.
        Synthetic images are compared by name.

    Raises:
        ReadError: the storage is out of reach.
    """
    train_paths = {sample.path for sample in train}
    leaks = [(sample.path, sample.path) for sample in val if sample.path in train_paths]
    train_files = {sample.path: sample.file_size for sample in train if sample.draw is None}
    val_files = {sample.path: sample.file_size for sample in val if sample.draw is None}
    for first, second in identical_files({**train_files, **val_files}):
        if first in train_files and second not in train_files:
            leaks.append((first, second))
    return leaks


def _groups(paths: Iterable[Path], content: Callable[[Path], Hashable | None]) -> list[list[Path]]:
    """Paths with the same content, in groups of at least two; `None` is like nothing else."""
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        value = content(path)
        if value is not None:
            groups[value].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _reader(read: Callable[[BinaryIO], Hashable]) -> Callable[[Path], Hashable | None]:
    """What `read` returns for a path; `None` if the file has meanwhile been removed."""

    def content(path: Path) -> Hashable | None:
        try:
            return read_with(read, path)
        except ReadError as error:
            if is_outage(error):
                raise
            return None

    return content


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
    return file.read(TAIL)
