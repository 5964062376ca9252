"""From what an annotation file says to clean `Record`s: every kind of dirty data has one rule, and is counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from utils.core.errors import UserError
from utils.core.images import read_image
from utils.core.progress import progress_bar
from utils.data.duplicates import identical_files
from utils.data.sample import Sample

RULES = {
    "listed twice": "second entry left out",
    "image missing": "left out",
    "annotation missing": "VOC: left out; YOLO: kept as an image without objects",
    "annotation unreadable": "image left out",
    "annotation of no image": "ignored",
    "image undecodable": "left out; found while caching: a gray image without objects",
    "image truncated": "the part that is there is used",
    "image with EXIF rotation": "turned upright (WebP: if OpenCV does); boxes refer to the upright image",
    "image gray": "made RGB",
    "image with alpha": "alpha dropped",
    "image CMYK": "made RGB",
    "image identical to another": "kept",
    "size differs from annotation": "the image's own size counts, boxes stay as they are",
    "corners swapped": "put in order",
    "box beyond the image": "clipped (counted from one pixel)",
    "box empty": "dropped: no area inside the image",
    "box twice": "dropped: same class and place as another of its image",
}
EXAMPLES = 3
ORIENTATION = 0x0112  # EXIF tag


@dataclass
class Report:
    """What was read and what was mended: counters, with the first few places of each kind.

    Attributes:
        images, objects, empty: records, their boxes, and records without a box.
        per_class: class name -> number of boxes.
        counts: key of `RULES` -> number of times.
        examples: key of `RULES` -> at most three files.
    """

    pictures: int = 0
    objects: int = 0
    empty: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, rule: str, where: str | Path, count: int = 1) -> None:
        """Count `count` cases of `rule` (a key of `RULES`) at `where`."""
        if rule not in RULES:
            raise KeyError(rule)
        if count:
            self.counts[rule] += count
            places = self.examples.setdefault(rule, [])
            if len(places) < EXAMPLES and str(where) not in places:
                places.append(str(where))

    def summarize(self, samples: Sequence[Sample], names: Sequence[str]) -> None:
        """Fill `images`, `objects`, `empty` and `per_class`."""
        self.pictures = len(samples)
        self.empty = sum(not len(sample.boxes) for sample in samples)
        labels = (
            np.concatenate([sample.labels for sample in samples])
            if samples
            else np.zeros(0, np.int64)
        )
        self.objects = len(labels)
        counts = np.bincount(labels, minlength=len(names))
        self.per_class = {name: int(count) for name, count in zip(names, counts, strict=True)}

    def lines(self) -> list[str]:
        """A text table: totals, objects a class, then one line a kind of dirty data with its rule and examples."""
        lines = [
            f"{self.pictures} images, {self.objects} objects, {self.empty} images without objects"
        ]
        if self.per_class:
            lines.append(
                "objects: " + ", ".join(f"{name} {count}" for name, count in self.per_class.items())
            )
        width = max((len(rule) for rule in self.counts), default=0)
        for rule in (rule for rule in RULES if self.counts[rule]):
            places = ", ".join(self.examples[rule])
            lines.append(
                f"  {self.counts[rule]:>6} x {rule:<{width}}  {RULES[rule]}  (e.g. {places})"
            )
        return lines


@dataclass
class Labeled:
    """One image as its annotation describes it, before any check.

    Attributes:
        path: the image, which exists.
        source: the annotation, for messages.
        boxes: x1 y1 x2 y2 each, as written.
        labels, difficult, crowd: one a box.
        size: (width, height) that the annotation states.
        relative: boxes are shares of the image's width and height.
        one_based: corners are pixel numbers from 1, both inclusive (Pascal VOC).
    """

    path: Path
    source: str
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    size: tuple[int, int] | None = None
    relative: bool = False
    one_based: bool = False


@dataclass(frozen=True)
class Header:
    """An image file's upright (width, height) in pixels, and the keys of `RULES` that its header shows."""

    size: tuple[int, int] | None
    notes: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """Size, color mode and EXIF rotation from the file's header; decodes only what Pillow cannot tell."""
    notes: list[str] = []
    try:
        with Image.open(path) as picture:
            size, mode, kind = picture.size, picture.mode, picture.format
            turn = _orientation(picture)
            alpha = mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    except Exception:  # Pillow raises many kinds; what OpenCV can decode is still an image
        size, mode, kind, turn, alpha = (0, 0), "", None, 1, False
    turned = turn in range(2, 9)
    flags = (
        turned,
        mode in ("1", "L", "LA", "La", "F") or mode.startswith("I"),
        alpha,
        mode == "CMYK",
    )
    kinds = ("image with EXIF rotation", "image gray", "image with alpha", "image CMYK")
    notes += [kind for kind, flag in zip(kinds, flags, strict=True) if flag]
    if turned and kind == "JPEG":
        size = size[::-1] if turn >= 5 else size
    elif turned or not all(
        size
    ):  # outside JPEG, which rotations are applied depends on the decoder: ask it
        try:
            size = read_image(path).shape[1::-1]
        except UserError:
            return Header(None, ("image undecodable",))
    return Header((int(size[0]), int(size[1])), tuple(notes))


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1..8. `Image.getexif` would decode every PNG, and believes XMP, which OpenCV does not."""
    if picture.format == "TIFF":
        return picture.getexif().get(ORIENTATION, 1)
    exif = Image.Exif()
    exif.load(picture.info.get("exif", b""))
    return exif.get(ORIENTATION, 1)


def clean_boxes(
    item: Labeled, size: tuple[int, int], report: Report
) -> tuple[np.ndarray, np.ndarray]:
    """Order, clip and thin out the boxes of one image of `size` (width, height).

    Returns:
        boxes float32 `(n, 4)` xyxy pixels inside the image, and the positions `(n,)` that were kept of the input.
    """
    raw = np.asarray(item.boxes, np.float64).reshape(-1, 4)
    boxes = np.concatenate(
        [np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1
    )
    report.note("corners swapped", item.source, int((boxes != raw).any(1).sum()))
    limit = np.tile(np.array(size, np.float64), 2)
    if item.one_based:
        boxes[:, :2] -= 1
    if item.relative:
        boxes *= limit
    inside = np.clip(boxes, 0, limit).astype(np.float32)
    report.note(
        "box beyond the image", item.source, int((np.abs(inside - boxes) > 1 + 1e-6).any(1).sum())
    )
    full = (inside[:, 2:] > inside[:, :2]).all(1)
    report.note("box empty", item.source, int((~full).sum()))
    seen: set[tuple] = set()
    keep = []
    for index in np.flatnonzero(full):
        place = (item.labels[index], item.crowd[index], *np.round(inside[index], 2).tolist())
        if place not in seen:
            seen.add(place)
            keep.append(index)
    report.note("box twice", item.source, int(full.sum()) - len(keep))
    kept = np.array(keep, np.int64)
    return inside[kept], kept


def build_samples(
    items: Sequence[Labeled], report: Report, workers: int = 8, progress: bool = True
) -> list[Sample]:
    """Read every image's header in a thread pool, clean the boxes, and count what was mended in `report`.

    Undecodable images are left out. The order of `items` is kept; the result does not depend on `workers`.
    """
    items = list(_without_repeats(items, report))
    headers = parallel(
        read_header, [item.path for item in items], workers, "checking images", progress
    )
    for _, later in identical_files(item.path for item in items):
        report.note("image identical to another", later)
    samples = []
    for item, header in zip(items, headers, strict=True):
        for note in header.notes:
            report.note(note, item.path)
        if header.size is None:
            continue
        if item.size and all(item.size) and item.size != header.size:
            report.note("size differs from annotation", item.source)
        boxes, kept = clean_boxes(item, header.size, report)
        labels = np.array(item.labels, np.int64)[kept]
        difficult, crowd = (
            np.array(flags, np.bool_)[kept] for flags in (item.difficult, item.crowd)
        )
        width, height = header.size
        samples.append(Sample(item.path, width, height, boxes, labels, difficult, crowd))
    return samples


def parallel(
    task: Callable, items: Sequence, workers: int, title: str, progress: bool = True
) -> list:
    """`[task(item) for item in items]` in threads, with a progress bar."""
    with ThreadPoolExecutor(max(workers, 2)) as pool:
        results = pool.map(task, items)
        return list(progress_bar(results, desc=title, total=len(items), show=progress))


def _without_repeats(items: Iterable[Labeled], report: Report) -> Iterable[Labeled]:
    seen: set[Path] = set()
    for item in items:
        if item.path in seen:
            report.note("listed twice", item.path)
        else:
            seen.add(item.path)
            yield item
