"""What `predict.py --save` writes for images: the formats, and the names of the files.

Everything is below one folder. A format is a context manager that yields a function; this is called
with one image after the other.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.drawing import pixel_boxes
from utils.core.errors import UserError, nearest
from utils.core.images import IMAGE_SUFFIXES, write_image
from utils.core.outputs import check_folder, write_file
from utils.engine.coco_ids import CocoIds, choose_ids
from utils.engine.outputs import growing_file, json_list, new_output_folder, unused_path
from utils.engine.sources import ImageSource

WRITABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
COLUMNS = ("image", "width", "height", "class", "name", "score", "x1", "y1", "x2", "y2")


@dataclass
class PredictedImage:
    """An image with its detections.

    Attributes:
        index: its position among the sources.
        image: RGB uint8 `(h, w, 3)`.
        detections: what was detected in it.
        place: the relative path that names its files.
    """

    index: int
    image: np.ndarray
    detections: Detections
    place: Path = field(default_factory=Path)

    @cached_property
    def drawn(self) -> np.ndarray:
        """The image with its boxes, RGB uint8 `(h, w, 3)`."""
        return self.detections.plot(self.image)


@dataclass(frozen=True)
class Job:
    """What the formats need to know beforehand.

    Attributes:
        images: the images, in order.
        detector: what detects in them.
        save_conf: txt: add the score to each line.
    """

    images: Sequence[ImageSource]
    detector: Detector
    save_conf: bool = False

    @cached_property
    def coco_ids(self) -> CocoIds:
        """The ids for COCO's results format."""
        return choose_ids(self.images, self.detector.config.data, self.detector.names)


Write = Callable[[PredictedImage], None]
Format = Callable[[Path, Job], AbstractContextManager[Write]]


def _image(folder: Path, job: Job) -> AbstractContextManager[Write]:
    """`<name>`: the image with its boxes."""
    return nullcontext(lambda one: write_image(folder / image_path(one.place), one.drawn))


def _txt(folder: Path, job: Job) -> AbstractContextManager[Write]:
    """`labels/<name>.txt` as by Ultralytics' `save_txt`: no file if there are no objects."""

    def write(one: PredictedImage) -> None:
        if len(one.detections):
            write_file(folder / label_path(one.place), _lines(one.detections, job.save_conf))

    return nullcontext(write)


def _lines(detections: Detections, with_scores: bool) -> str:
    """One line per object: class, center x, center y, width, height (fractions), score."""
    start, end = detections.boxes[:, :2], detections.boxes[:, 2:]
    size = np.array([detections.width, detections.height], np.float32)
    center, extent = (start + end) / 2 / size, (end - start) / size
    rows = np.column_stack([detections.labels, center, extent, detections.scores])
    rows = rows[:, : 6 if with_scores else 5]
    return "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in rows.tolist())


@contextmanager
def _coco(folder: Path, job: Job) -> Iterator[Write]:
    """`detections.coco.json`, COCO's results; `images.coco.json`: which image has which id."""
    ids = job.coco_ids
    head = {"info": {"description": f"ids of the images: {ids.origin}"}, "annotations": []}
    categories = [
        {"id": number, "name": name}
        for number, name in zip(ids.categories, job.detector.names, strict=True)
    ]
    before = json.dumps({**head, "categories": categories}, ensure_ascii=False)[:-1]
    with (
        json_list(unused_path(folder / "detections.coco.json")) as add_result,
        json_list(
            unused_path(folder / "images.coco.json"), f'{before}, "images": ', "}"
        ) as add_image,
    ):

        def write(one: PredictedImage) -> None:
            number, found = ids.images[one.index], one.detections
            size = {"width": found.width, "height": found.height}
            add_image({"id": number, "file_name": found.image, **size})
            for entry in found.to_coco(number, ids.categories):
                add_result(entry)

        yield write


@contextmanager
def _csv(folder: Path, job: Job) -> Iterator[Write]:
    """`detections.csv`: one line per object."""
    with growing_file(unused_path(folder / "detections.csv")) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)

        def write(one: PredictedImage) -> None:
            entry = one.detections.to_json()
            size = entry["image"], entry["width"], entry["height"]
            for found in entry["detections"]:
                rows.writerow((*size, found["class"], found["name"], found["score"], *found["box"]))

        yield write


def _crops(folder: Path, job: Job) -> AbstractContextManager[Write]:
    """`crops/<class>/<name>-<n>.jpg`: every object, the best score first."""
    folders = class_folders(job.detector.names)

    def write(one: PredictedImage) -> None:
        found = one.detections
        corners = pixel_boxes(found.boxes, found.width, found.height)
        for number, ((x1, y1, x2, y2), label) in enumerate(zip(corners, found.labels, strict=True)):
            name = one.place.with_name(f"{one.place.stem}-{number + 1}.jpg")
            path = folder / "crops" / folders[label] / name
            write_image(unused_path(path), one.image[y1:y2, x1:x2])

    return nullcontext(write)


@contextmanager
def _json(folder: Path, job: Job) -> Iterator[Write]:
    """`detections.json`: what `--json` writes."""
    with json_list(unused_path(folder / "detections.json")) as add:
        yield lambda one: add(one.detections.to_json())


FORMATS: dict[str, Format] = {
    "image": _image,
    "txt": _txt,
    "coco": _coco,
    "csv": _csv,
    "crops": _crops,
    "json": _json,
}


def image_path(place: Path) -> Path:
    """The file of an image with boxes, in a format that can be written."""
    return place if place.suffix.lower() in WRITABLE else place.with_name(f"{place.name}.png")


def label_path(place: Path) -> Path:
    """The file with the labels of an image."""
    return Path("labels", place.with_suffix(".txt"))


def class_folders(names: Sequence[str]) -> list[str]:
    """A different folder name for each class, without what file systems forbid in names."""
    folders: dict[str, str] = {}  # in lower case -> the folder; some file systems ignore the case
    for name in names:
        safe = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", name).strip(". ")
        safe = safe.encode("utf-8", "replace")[:200].decode("utf-8", "ignore") or "_"
        candidate, number = safe, 1
        while candidate.casefold() in folders:
            number += 1
            candidate = f"{safe}-{number}"
        folders[candidate.casefold()] = candidate
    return list(folders.values())


class ImageSaver(AbstractContextManager["ImageSaver"]):
    """Writes images and their detections in some formats; call it with one after the other.

    Nothing is overwritten: a name in use gets "-2", the same in all formats. The folder is made for
    the first image.

    Args:
        out: the folder, or for a single image a file; None: `runs/predict`, `runs/predict-2`, ...
        formats: names in `FORMATS`.
        job: what they need to know.

    Attributes:
        out: the folder or file that is written; None before the first image.
        renamed: number of images whose files have another name.

    Raises:
        UserError: an unknown format, several outputs for a single file, or a folder that cannot be
            written to.
    """

    def __init__(self, out: str | Path | None, formats: Sequence[str], job: Job) -> None:
        self.out = None if out is None else Path(out)
        self.formats = check_formats(formats)
        self.renamed = 0
        self._job = job
        self._used: set[Path] = set()
        self._stack = ExitStack()
        self._writers: list[Write] = []
        self._is_file = False
        if self.out is None:
            return
        self._is_file = self.out.suffix.lower() in IMAGE_SUFFIXES and not self.out.is_dir()
        if self._is_file and len(job.images) > 1:
            raise UserError(
                f"--out {out} is a file name, but there are {len(job.images)} images: give a folder"
            )
        if self._is_file and self.formats != ["image"]:
            raise UserError(
                f"--out {out} is a file name, but --save {' '.join(self.formats)} needs a folder"
            )
        check_folder(self.out if self._is_file else self.out / "x", f"--out {out}")

    def __call__(self, one: PredictedImage) -> None:
        """Write an image's files."""
        if self.out is None:
            self.out = new_output_folder()
        if self._is_file:
            write_image(self.out, one.drawn)
            return
        if not self._writers:
            self.out.mkdir(parents=True, exist_ok=True)  # even if no format has anything to write
            for name in self.formats:
                context = FORMATS[name](self.out, self._job)
                self._writers.append(self._stack.enter_context(context))
        one.place = self._choose_place(self._job.images[one.index])
        for write in self._writers:
            write(one)

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)  # type: ignore[arg-type]

    def notes(self) -> list[str]:
        """Lines about the names of the files, and the ids of images."""
        lines = []
        if self.renamed:
            lines.append(f"renamed {self.renamed} whose name was in use: -2, -3, ... added")
        if "coco" in self.formats:
            lines.append(f"ids of the images: {self._job.coco_ids.origin}")
        return lines

    def _choose_place(self, source: ImageSource) -> Path:
        """A relative path of which no format has used the file."""
        assert self.out is not None
        wanted = Path(source.name) if source.from_folder else Path(Path(source.name).name)
        place, number = wanted, 1
        while self._is_taken(place):
            number += 1
            place = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        self.renamed += place != wanted
        self._used.update(self._files(place))
        return place

    def _is_taken(self, place: Path) -> bool:
        assert self.out is not None
        files = self._files(place)
        return any(path in self._used or (self.out / path).exists() for path in files)

    def _files(self, place: Path) -> list[Path]:
        """The files of an image; the numbered ones of its crops are those of its labels."""
        files = []
        if "image" in self.formats:
            files.append(image_path(place))
        if {"txt", "crops"} & set(self.formats):
            files.append(label_path(place))
        return files


def check_formats(formats: Sequence[str]) -> list[str]:
    """The formats without repetition.

    Raises:
        UserError: there is no such format.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--save {name}: no such format{nearest(name, FORMATS)}")
    return list(dict.fromkeys(formats))
