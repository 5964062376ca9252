"""Duplicate images, by path or by content, within a split or across splits (a leak)."""

import filecmp
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.data.sample import Sample

TAIL = 4096  # bytes compared first; compressed images differ at the end rather than at the start


def identical_files(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Find files with the same content. Whole files are read only if size and last bytes agree.

    Returns:
        (earlier, later) for every file with the same bytes as an earlier one.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    candidates: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for size, group in by_size.items():
        if len(group) > 1:
            for path in group:
                candidates[size, _tail_checksum(path, size)].append(path)
    duplicates = []
    for group in candidates.values():
        duplicates += _compare_contents(group)
    return duplicates


def find_leaks(train: Sequence[Sample], val: Sequence[Sample]) -> list[tuple[Path, Path]]:
    """Find validation images that are also training images.

    Returns:
        (training image, validation image): the same file, or two files with the same bytes.
        Synthetic images are compared by name.
    """
    train_paths = {sample.path for sample in train}
    leaks = [(sample.path, sample.path) for sample in val if sample.path in train_paths]
    train_files = [sample.path for sample in train if sample.draw is None]
    val_files = [
        sample.path for sample in val if sample.draw is None and sample.path not in train_paths
    ]
    train_set = set(train_files)
    val_set = set(val_files)
    for first, second in identical_files([*train_files, *val_files]):
        if first in train_set and second in val_set:
            leaks.append((first, second))
    return leaks


def _tail_checksum(path: Path, size: int) -> int:
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        return zlib.crc32(file.read(TAIL))


def _compare_contents(paths: list[Path]) -> list[tuple[Path, Path]]:
    """(earlier, later) for every file that equals an earlier one byte for byte."""
    originals: list[Path] = []
    duplicates = []
    for path in paths:
        for original in originals:
            if filecmp.cmp(original, path, shallow=False):
                duplicates.append((original, path))
                break
        else:
            originals.append(path)
    return duplicates
