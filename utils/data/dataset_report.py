"""What was read of a dataset: each kind of bad data has a rule and a count."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import UserError
from utils.core.images import FileState
from utils.data.sample import Sample

RULES = {
    "image listed twice": "read once; COCO: with the objects of both entries",
    "image missing": "skipped",
    "image found by the end of its path": "used: the list was written on another machine",
    "annotation missing": "VOC: image skipped; YOLO: kept as an image without objects",
    "annotation unreadable": "image skipped",
    "annotation without an image": "ignored",
    "annotation refused": "training stops: its class is unknown, or its image is unclear",
    "text not in UTF-8": "read in the encoding that it declares, else in the one it looks like",
    "file name with quotes or backslashes": "read without quotes, with / for each backslash",
    "number in quotes": "read as a number",
    "identifier in quotes": "7 and '7' are the same",
    "category listed twice": "read as one class",
    "image undecodable": "skipped; if found while caching: trained on as gray without objects",
    "image truncated": "the intact part is used",
    "image corrupt": "used as the decoder restores it",
    "image with EXIF rotation": (
        "rotated upright (WebP: if OpenCV does so); boxes refer to the upright image"
    ),
    "image in grayscale": "converted to RGB",
    "image with more than 8 bits": "16 bits: the upper 8 are used; 32 bits: clipped to 0..255",
    "image with alpha channel": "alpha dropped",
    "image in CMYK": "converted to RGB",
    "image identical to another": "kept",
    "size differs from annotation": "the size of the image is used, boxes stay as they are",
    "polygon": "read as its bounding box",
    "keypoints": "left out: only the box is read",
    "crowd region": "no training target; detections inside are not judged",
    "box with swapped corners": "corners reordered",
    "box beyond the image": "clipped (counted from one pixel on)",
    "box empty": "dropped: no area inside the image",
    "box repeated": "dropped: same class and position as another box of the image",
}
DAMAGE = {
    FileState.TRUNCATED: "image truncated",
    FileState.UNDECODABLE: "image undecodable",
    FileState.CORRUPT: "image corrupt",
}
EXAMPLES = 3  # per rule


@dataclass
class DatasetReport:
    """Counts of what was read and what was repaired, with the first few examples of each kind.

    Attributes:
        thorough: find all problems: name every file instead of a few, and count what ends a
            training instead of raising it.
        images: number of samples.
        objects: number of boxes but those of crowd regions.
        empty: number of samples without objects.
        per_class: class name -> number of objects.
        counts: key of `RULES` -> number of cases.
        examples: key of `RULES` -> the files, at most three unless `thorough`.
    """

    thorough: bool = False
    images: int = 0
    objects: int = 0
    empty: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _named: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def note(self, rule: str, source: str | Path, count: int = 1) -> None:
        """Count cases of bad data.

        Args:
            rule: a key of `RULES`.
            source: the file, for the examples.
            count: number of cases in it.
        """
        if rule not in RULES:
            raise KeyError(rule)
        if not count:
            return
        self.counts[rule] += count
        examples = self.examples.setdefault(rule, [])
        has_room = self.thorough or len(examples) < EXAMPLES
        if has_room and (rule, str(source)) not in self._named:
            self._named.add((rule, str(source)))
            examples.append(str(source))

    def refuse(self, error: UserError) -> None:
        """Raise an error that ends a training, or count it if all problems are to be found."""
        if not self.thorough:
            raise error
        self.note("annotation refused", str(error))

    def note_encoding(self, path: str | Path, encoding: str) -> None:
        """Count a text file that is not in UTF-8."""
        if encoding != "utf-8":
            self.note("text not in UTF-8", f"{path}: read as {encoding}")

    def reasons(self) -> str:
        """All counts on one line, each with an example."""
        counts = self.counts.items()
        return "; ".join(
            f"{count} x {rule}, e.g. {self.examples[rule][0]}" for rule, count in counts
        )

    def summarize(self, samples: Sequence[Sample], class_names: Sequence[str]) -> None:
        """Fill `images`, `objects`, `empty` and `per_class`."""
        self.images = len(samples)
        self.empty = sum(bool(sample.crowd.all()) for sample in samples)
        counts = np.zeros(len(class_names), np.int64)
        for sample in samples:
            counts += np.bincount(sample.labels[~sample.crowd], minlength=len(class_names))
        self.objects = int(counts.sum())
        self.per_class = dict(zip(class_names, counts.tolist(), strict=True))

    def totals(self) -> dict[str, Any]:
        """`images`, `objects`, `empty` and `per_class`, as in JSON."""
        return {
            "images": self.images,
            "objects": self.objects,
            "empty": self.empty,
            "per_class": self.per_class,
        }

    def lines(self) -> list[str]:
        """Text: totals, objects per class, then one line per kind of bad data with its rule."""
        lines = [
            f"{self.images} images, {self.objects} objects, {self.empty} images without objects"
        ]
        if self.per_class:
            per_class = [f"{name} {count}" for name, count in self.per_class.items()]
            lines.append(f"objects: {', '.join(per_class)}")
        rules = [rule for rule in RULES if self.counts[rule]]
        width = max(map(len, rules), default=0)
        for rule in rules:
            examples = ", ".join(self.examples[rule])
            lines.append(
                f"  {self.counts[rule]:>6} x {rule:<{width}}  {RULES[rule]}  (e.g. {examples})"
            )
        return lines
