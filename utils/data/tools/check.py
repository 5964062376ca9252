"""Everything that is wrong with a dataset, or worth knowing about it, with the files named."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import UserError, shorten
from utils.core.images import FileState, Letterbox, read_image_file
from utils.core.inputs import is_file, is_outage
from utils.data.checks import map_in_threads
from utils.data.dataset_report import DAMAGE, EXAMPLES, RULES, DatasetReport
from utils.data.duplicates import find_leaks
from utils.data.readers.folder_tree import FolderTree
from utils.data.sample import Sample
from utils.data.tools.inventory import Inventory

# Rules after which the data is as it was meant; after others, something is lost or doubtful
REMARKS = frozenset(
    {
        "image listed twice",
        "image found by the end of its path",
        "text not in UTF-8",
        "file name with quotes or backslashes",
        "number in quotes",
        "identifier in quotes",
        "category listed twice",
        "image with EXIF rotation",
        "image in grayscale",
        "image with more than 8 bits",
        "image with alpha channel",
        "image in CMYK",
        "image identical to another",
        "polygon",
        "keypoints",
        "crowd region",
    }
)
LONGEST = 1000  # characters of a line with a file


@dataclass(frozen=True)
class Problem:
    """One kind of finding in one split.

    Attributes:
        split: the split.
        rule: what was found.
        treatment: what a training does about it.
        is_error: whether data is lost or doubtful; else it is a remark.
        count: number of cases.
        files: where.
    """

    split: str
    rule: str
    treatment: str
    is_error: bool
    count: int
    files: tuple[str, ...]


def find_problems(
    inventory: Inventory, decode: bool = True, progress: bool = True
) -> list[Problem]:
    """Check a dataset.

    Args:
        inventory: the dataset, read thoroughly so that all files are named.
        decode: decode every image, which takes most of the time.
        progress: show progress bars.

    Returns:
        Errors first, each kind in the order of the splits.
    """
    problems = []
    for name, (reason, report) in inventory.failures.items():
        treatment = "training stops; what follows in this split is unknown"
        problems.append(Problem(name, "split unreadable", treatment, True, 1, (reason,)))
        problems += _counted(inventory, name, report)
    for name, contents in inventory.splits.items():
        if decode:
            _decode_all(contents.samples, contents.report, f"decoding {name}", progress)
        problems += _counted(inventory, name, contents.report)
        problems += _remarks(inventory, name)
    problems += _leaks(inventory)
    problems += _unmatched_annotations(inventory)
    return sorted(problems, key=lambda problem: not problem.is_error)


def _counted(inventory: Inventory, split: str, report: DatasetReport) -> list[Problem]:
    """What the reader and the decoder counted."""
    problems = []
    for rule in RULES:
        if report.counts[rule]:
            treatment, is_error = RULES[rule], rule not in REMARKS
            if rule == "annotation missing":  # in YOLO's format, the usual way to say: no objects
                is_error = inventory.data.format != "yolo"
                treatment = "image skipped" if is_error else "kept as an image without objects"
            files = tuple(report.examples[rule])
            count = report.counts[rule]
            problems.append(Problem(split, rule, treatment, is_error, count, files))
    return problems


def _decode_all(
    samples: Sequence[Sample], report: DatasetReport, title: str, progress: bool
) -> None:
    """Count the images that cannot be decoded, or not to their end."""
    files = [sample.path for sample in samples if sample.draw is None]
    for found in map_in_threads(_decode, files, os.cpu_count() or 1, title, progress):
        if found is not None:
            report.note(*found)


def _decode(path: Path) -> tuple[str, str | Path] | None:
    try:
        _, state = read_image_file(path)
    except UserError as error:
        if is_outage(error):
            raise
        return "image undecodable", str(error)
    return None if state == FileState.WHOLE else (DAMAGE[state], path)


def _remarks(inventory: Inventory, split: str) -> Iterator[Problem]:
    """Nothing at all, empty images, classes without objects, objects too small to be detected."""
    contents = inventory.splits[split]
    if not contents.samples:
        yield Problem(split, "no usable image", "training stops", True, 1, ())
    elif contents.report.counts["crowd region"] and not contents.report.objects:
        treatment = "nothing can be learned or measured"
        yield Problem(split, "only crowd regions", treatment, True, 1, ())
    empty = tuple(str(sample.path) for sample in contents.samples if sample.crowd.all())
    if empty:
        yield Problem(split, "image without objects", "background", False, len(empty), empty)
    absent = tuple(name for name, count in contents.report.per_class.items() if not count)
    if absent:
        treatment = "cannot be learned or measured here"
        yield Problem(split, "class without objects", treatment, False, len(absent), absent)
    counts = [int(_small_objects(sample, inventory).sum()) for sample in contents.samples]
    files = tuple(
        str(sample.path) for sample, count in zip(contents.samples, counts, strict=True) if count
    )
    if files:
        height, width = inventory.input_size
        rule = f"object below {inventory.small} px at {width}x{height}"
        treatment = "hard to detect: raise input_size"
        yield Problem(split, rule, treatment, False, sum(counts), files)


def _small_objects(sample: Sample, inventory: Inventory) -> np.ndarray:
    """Which objects are smaller (the root of the area) than `small`, bool `(n,)`."""
    scale = Letterbox((sample.height, sample.width), inventory.input_size).scale
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]) * scale
    return (sides.prod(axis=1) < inventory.small**2) & ~sample.crowd


def _leaks(inventory: Inventory) -> Iterator[Problem]:
    """Images that are in two splits."""
    for first, second in combinations(inventory.splits, 2):
        leaks = find_leaks(inventory.splits[first].samples, inventory.splits[second].samples)
        if leaks:
            files = tuple(f"{other} is {path}" for path, other in leaks)
            rule, treatment = f"image also in '{first}'", "kept: the measured accuracy is too high"
            yield Problem(second, rule, treatment, True, len(leaks), files)


def _unmatched_annotations(inventory: Inventory) -> Iterator[Problem]:
    """Annotation files without an image; text files count in folders for labels only."""
    suffix = {"voc": ".xml", "yolo": ".txt"}.get(inventory.data.format)
    if suffix is None:
        return
    root = Path(inventory.data.root)
    tree = FolderTree(root.parent if is_file(root) else root, suffix)
    files = tuple(
        str(path)
        for path in tree.unmatched_annotations()
        if suffix == ".xml" or ("labels" in path.parts and path.name != "classes.txt")
    )
    if files:
        rule = "annotation without an image"
        yield Problem("all", rule, RULES[rule], True, len(files), files)


def overview(inventory: Inventory, rules: bool = False) -> list[str]:
    """Lines for the terminal: what was recognized, and how much is in each split.

    Args:
        inventory: the dataset.
        rules: also say by which rules bad data was read.
    """
    lines = list(inventory.notes)
    for name, contents in inventory.splits.items():
        title, *details = contents.report.lines()
        lines.append(f"{name}: {title}")
        lines += details if rules else details[:1]
    return lines


def describe(inventory: Inventory, problems: Sequence[Problem], everything: bool) -> list[str]:
    """Lines for the terminal.

    Args:
        inventory: the dataset.
        problems: what was found.
        everything: name all files instead of a few.
    """
    lines = overview(inventory)
    for title, chosen in (
        ("errors", [problem for problem in problems if problem.is_error]),
        ("remarks", [problem for problem in problems if not problem.is_error]),
    ):
        if chosen:
            lines.append(f"{title}:")
        for problem in chosen:
            lines.append(
                f"  {problem.split}: {problem.count} x {problem.rule} ({problem.treatment})"
            )
            shown = problem.files if everything else problem.files[:EXAMPLES]
            lines += [f"      {shorten(file, LONGEST)}" for file in shown]
            if len(shown) < len(problem.files):
                lines.append(f"      ... and {len(problem.files) - len(shown)} more (--all)")
    return [*lines, summary(problems)]


def summary(problems: Sequence[Problem]) -> str:
    """One line: how many errors and remarks there are."""
    errors = sum(problem.count for problem in problems if problem.is_error)
    remarks = sum(problem.count for problem in problems if not problem.is_error)
    return f"{errors} errors, {remarks} remarks"


def to_json(inventory: Inventory, problems: Sequence[Problem]) -> dict[str, Any]:
    """All findings, as `--json` writes them."""
    return {
        "root": inventory.data.root,
        "format": inventory.data.format,
        "class_names": list(inventory.class_names),
        "splits": {name: split.report.totals() for name, split in inventory.splits.items()},
        "errors": sum(problem.count for problem in problems if problem.is_error),
        "remarks": sum(problem.count for problem in problems if not problem.is_error),
        "problems": [asdict(problem) for problem in problems],
    }
