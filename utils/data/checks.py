"""Checks that turn raw annotations into samples; each kind of bad data has a rule and a count."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from utils.core.errors import UserError
from utils.core.images import MAX_PIXELS, FileState, read_image
from utils.core.inputs import ReadError, is_outage, read_with
from utils.core.outputs import OverwriteError
from utils.core.progress import progress_bar
from utils.data.duplicates import identical_files
from utils.data.sample import Sample

RULES = {
    "image listed twice": "second entry ignored",
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
    "image undecodable": "skipped; if found while caching: a gray image without objects",
    "image truncated": "the intact part is used",
    "image corrupt": "used as the decoder restores it",
    "image with EXIF rotation": (
        "rotated upright (WebP: if OpenCV does so); boxes refer to the upright image"
    ),
    "image in grayscale": "converted to RGB",
    "image with alpha channel": "alpha dropped",
    "image in CMYK": "converted to RGB",
    "image identical to another": "kept",
    "size differs from annotation": "the size of the image is used, boxes stay as they are",
    "polygon": "read as its bounding box",
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
ORIENTATION = 0x0112  # EXIF tag


@dataclass
class DatasetReport:
    """Counts of what was read and what was repaired, with the first few examples of each kind.

    Attributes:
        thorough: find all problems: name every file instead of a few, and count what ends a
            training instead of raising it.
        images: number of samples.
        objects: number of boxes.
        empty: number of samples without boxes.
        per_class: class name -> number of boxes.
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
        self.empty = sum(not len(sample.boxes) for sample in samples)
        counts = np.zeros(len(class_names), np.int64)
        for sample in samples:
            counts += np.bincount(sample.labels, minlength=len(class_names))
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


@dataclass
class RawAnnotation:
    """The objects of one image as its annotation states them, before any check.

    Attributes:
        path: the image file, which exists.
        source: the annotation, for messages.
        size: (width, height) that the annotation states, in pixels.
        relative: boxes are fractions of the image's width and height.
        one_based: corners are pixel numbers from 1, both inclusive (Pascal VOC).
        boxes: x1 y1 x2 y2 of each object, as written.
        labels: class index of each object.
        difficult: Pascal VOC's flag of each object.
        crowd: COCO's flag of each object.
    """

    path: Path
    source: str
    size: tuple[int, int] | None = None
    relative: bool = False
    one_based: bool = False
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)

    def add(
        self,
        box: tuple[float, float, float, float],
        label: int,
        difficult: bool = False,
        crowd: bool = False,
    ) -> None:
        """Add one object."""
        self.boxes.append(box)
        self.labels.append(label)
        self.difficult.append(difficult)
        self.crowd.append(crowd)


@dataclass(frozen=True)
class Header:
    """Properties read from the header of an image file.

    Attributes:
        size: (width, height) of the upright image, in pixels; `None` if it cannot be decoded.
        rules: the keys of `RULES` that apply.
        reason: why it cannot be decoded, with its name.
        file_size: size of the file, in bytes.
        modified: its modification time, in ns since 1970.
    """

    size: tuple[int, int] | None
    rules: tuple[str, ...] = ()
    reason: str = ""
    file_size: int = 0
    modified: int = 0


def read_header(path: Path) -> Header:
    """Read size, color mode and EXIF rotation; decode the image only if Pillow fails.

    Raises:
        ReadError: the storage is out of reach, which says nothing about the image.
        OverwriteError: it is also an output of this command.
    """
    try:
        properties, status = read_with(_read_properties, path)
        size = _upright_size(path, properties)
    except UserError as error:  # not a file, no permission, or no image
        if is_outage(error) or isinstance(error, OverwriteError):
            raise
        return Header(None, ("image undecodable",), str(error))
    return Header(size, properties.rules, "", status.st_size, status.st_mtime_ns)


class _Properties(NamedTuple):
    """What Pillow reads from a header; the defaults if it cannot."""

    size: tuple[int, int] = (0, 0)  # width, height
    file_format: str | None = None
    orientation: int = 1
    rules: tuple[str, ...] = ()


def _read_properties(file: BinaryIO) -> tuple[_Properties, os.stat_result]:
    status = os.fstat(file.fileno())
    try:
        with Image.open(file) as image:
            orientation = _orientation(image)
            rules = _color_rules(image)
            if orientation in range(2, 9):
                rules.insert(0, "image with EXIF rotation")
            return _Properties(image.size, image.format, orientation, tuple(rules)), status
    except Image.DecompressionBombError:
        raise ReadError(
            f"{file.name}: expected at most {MAX_PIXELS:,} pixels, claims more"
        ) from None
    except Exception as error:  # Pillow raises many kinds; OpenCV may still be able to decode it
        if is_outage(error):
            raise
        return _Properties(), status


def _upright_size(path: Path, header: _Properties) -> tuple[int, int]:
    """(width, height) after rotation; raises a UserError if the image cannot be decoded."""
    width, height = header.size
    rotated = header.orientation in range(2, 9)
    if width and height and not rotated:
        return width, height
    if rotated and header.file_format == "JPEG":
        return (height, width) if header.orientation >= 5 else (width, height)
    # outside JPEG, which rotations are applied depends on the decoder, so decode the image
    height, width = read_image(path).shape[:2]
    return width, height


def _color_rules(image: Image.Image) -> list[str]:
    """The keys of `RULES` that apply to the color mode of an image."""
    rules = []
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        rules.append("image in grayscale")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rules.append("image with alpha channel")
    if image.mode == "CMYK":
        rules.append("image in CMYK")
    return rules


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8.

    `Image.getexif` would decode every PNG, and it honors XMP, which OpenCV ignores.
    """
    if image.format == "TIFF":
        return image.getexif().get(ORIENTATION, 1)
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif.get(ORIENTATION, 1)


def clean_boxes(
    annotation: RawAnnotation, size: tuple[int, int], report: DatasetReport
) -> tuple[np.ndarray, np.ndarray]:
    """Order the corners of an image's boxes, clip the boxes, drop empty and repeated ones.

    Args:
        annotation: the boxes as written.
        size: (width, height) of the image, in pixels.
        report: report that counts the repairs.

    Returns:
        boxes float32 `(n, 4)`, xyxy pixels inside the image; and their int64 indices `(n,)` among
        the boxes of `annotation`.
    """
    source = annotation.source
    raw = np.asarray(annotation.boxes, np.float64).reshape(-1, 4)
    low = np.minimum(raw[:, :2], raw[:, 2:])
    high = np.maximum(raw[:, :2], raw[:, 2:])
    boxes = np.concatenate([low, high], axis=1)
    report.note("box with swapped corners", source, int((boxes != raw).any(1).sum()))
    limit = np.tile(np.array(size, np.float64), 2)
    if annotation.one_based:
        boxes[:, :2] -= 1
    if annotation.relative:
        boxes *= limit
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    beyond = (np.abs(clipped - boxes) > 1 + 1e-6).any(1)
    report.note("box beyond the image", source, int(beyond.sum()))
    nonempty = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(1))
    report.note("box empty", source, len(clipped) - len(nonempty))
    unique: dict[tuple, int] = {}
    for index in nonempty.tolist():
        corners = np.round(clipped[index], 2).tolist()
        unique.setdefault((annotation.labels[index], annotation.crowd[index], *corners), index)
    report.note("box repeated", source, len(nonempty) - len(unique))
    keep = np.array(list(unique.values()), np.int64)
    return clipped[keep], keep


def build_samples(
    annotations: Sequence[RawAnnotation],
    report: DatasetReport,
    workers: int = 8,
    progress: bool = True,
) -> list[Sample]:
    """Check the images and clean the boxes.

    Args:
        annotations: one per image; a repeated image is ignored, an undecodable one skipped.
        report: report that counts the repairs.
        workers: threads that read the image headers; the result does not depend on it.
        progress: show a progress bar.

    Returns:
        The samples, in the order of `annotations`.
    """
    annotations = _without_repeats(annotations, report)
    paths = [annotation.path for annotation in annotations]
    headers = map_in_threads(read_header, paths, workers, "checking images", progress)
    checked = zip(paths, headers, strict=True)
    sizes = {path: header.file_size for path, header in checked if header.size}
    for _, duplicate in identical_files(sizes):
        report.note("image identical to another", duplicate)
    samples = []
    for annotation, header in zip(annotations, headers, strict=True):
        for rule in header.rules:
            report.note(rule, header.reason or annotation.path)
        if header.size is not None:
            samples.append(_build_sample(annotation, header, report))
    return samples


def _build_sample(annotation: RawAnnotation, header: Header, report: DatasetReport) -> Sample:
    size = header.size
    assert size is not None
    if annotation.size and all(annotation.size) and annotation.size != size:
        report.note("size differs from annotation", annotation.source)
    boxes, keep = clean_boxes(annotation, size, report)
    return Sample(
        path=annotation.path,
        width=size[0],
        height=size[1],
        boxes=boxes,
        labels=np.array(annotation.labels, np.int64)[keep],
        difficult=np.array(annotation.difficult, np.bool_)[keep],
        crowd=np.array(annotation.crowd, np.bool_)[keep],
        file_size=header.file_size,
        modified=header.modified,
    )


def _without_repeats(
    annotations: Sequence[RawAnnotation], report: DatasetReport
) -> list[RawAnnotation]:
    unique: dict[Path, RawAnnotation] = {}
    for annotation in annotations:
        if annotation.path in unique:
            report.note("image listed twice", annotation.path)
        else:
            unique[annotation.path] = annotation
    return list(unique.values())


def map_in_threads(
    function: Callable, items: Sequence, workers: int, title: str, progress: bool = True
) -> list:
    """`[function(item) for item in items]` in threads, with a progress bar."""
    with ThreadPoolExecutor(max(workers, 2)) as pool:
        results = pool.map(function, items)
        return list(progress_bar(results, desc=title, total=len(items), show=progress))
