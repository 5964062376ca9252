"""Images that are there twice: the same bytes under two names, in one split or in two (a leak)."""

import filecmp
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.data.sample import Sample

TAIL = 4096  # bytes: the end of a compressed image tells two apart, the head seldom does


def identical_files(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(earlier, later) for every file with the bytes of an earlier one; reads whole files only where ends agree."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    candidates: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for size, group in by_size.items():
        for path in group if len(group) > 1 else ():
            candidates[size, _tail(path, size)].append(path)
    return [pair for group in candidates.values() for pair in _pairs(group)]


def leaks(train: Sequence[Sample], val: Sequence[Sample]) -> list[tuple[Path, Path]]:
    """(training image, validation image) that are one file, or two files with the same bytes.

    Drawn images are compared by name.
    """
    names = {sample.path for sample in train}
    shared = [(sample.path, sample.path) for sample in val if sample.path in names]
    ours = [sample.path for sample in train if sample.draw is None]
    known = set(ours)
    theirs = [sample.path for sample in val if sample.draw is None and sample.path not in known]
    copies = identical_files([*ours, *theirs])
    outside = set(theirs)
    return shared + [
        (first, second) for first, second in copies if first in known and second in outside
    ]


def _tail(path: Path, size: int) -> int:
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL), os.SEEK_SET)
        return zlib.crc32(file.read(TAIL))


def _pairs(group: list[Path]) -> Iterable[tuple[Path, Path]]:
    originals: list[Path] = []
    for path in group:
        twin = next((known for known in originals if filecmp.cmp(known, path, shallow=False)), None)
        if twin is None:
            originals.append(path)
        else:
            yield twin, path
