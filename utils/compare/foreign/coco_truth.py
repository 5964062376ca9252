"""Test images and their objects from a COCO file, read as pycocotools reads it.

Unlike the reader of datasets, this one needs no images, and neither repairs nor clips a box: AP of
foreign detections is to be what pycocotools computes from the same files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from utils.compare.statistics.bootstrap import Groups
from utils.core.class_names import checked_names
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import read_file
from utils.core.text import decode_text
from utils.core.validation import SavedSection, Value, validate_json
from utils.data.readers.coco_files import image_folders
from utils.data.readers.file_finder import FileFinder
from utils.data.sample import Sample

MAX_BYTES = 2**30
GROUP_KEY = "video_id"  # of an image, as in COCO-VID and its like

Id = int | str
Coordinate = Annotated[float, Field(ge=-1e9, le=1e9)]
Side = Annotated[float, Field(ge=0, le=1e9)]
Box = tuple[Coordinate, Coordinate, Side, Side]  # x, y, width, height


class CocoSection(SavedSection):
    """A part of a COCO file; other keys belong to other readers."""

    model_config = ConfigDict(extra="ignore")


class TruthImage(CocoSection):
    """An entry of `images`; it keeps its other keys, of which one may name its group."""

    model_config = ConfigDict(extra="allow")

    id: Id
    file_name: str
    width: Annotated[int, Field(ge=1, le=1_000_000)]
    height: Annotated[int, Field(ge=1, le=1_000_000)]


class TruthObject(CocoSection):
    """An entry of `annotations`."""

    image_id: Id
    category_id: int
    bbox: Box
    iscrowd: Literal[0, 1] = 0


class TruthCategory(CocoSection):
    """An entry of `categories`."""

    id: int
    name: str


class TruthFile(CocoSection):
    """A COCO file of annotations."""

    images: list[TruthImage]
    annotations: list[TruthObject]
    categories: list[TruthCategory]


class ImageIndex:
    """Finds the test images that a file of detections means.

    Args:
        images: the test images.
    """

    def __init__(self, images: Sequence[TruthImage]) -> None:
        self._images = images
        names = [PurePosixPath(image.file_name.replace("\\", "/")) for image in images]
        self._by_id = {str(image.id): index for index, image in enumerate(images)}
        self._by_name = _unique([(name.name, index) for index, name in enumerate(names)])
        stems = [(name.stem, index) for index, name in enumerate(names)]
        # Ultralytics writes 7 for 000007.jpg
        stems += [(str(int(stem)), index) for stem, index in stems if stem.isdecimal()]
        self._by_stem = {**_unique(stems), **self._by_name}

    def find(
        self, ids: Sequence[Id], names: Sequence[str | None], origin: str
    ) -> tuple[list[int], bool]:
        """The index of each detection's image.

        All detections of a file are matched in the same way, the first of these that fits them
        all: by `file_name`, where they have one; by the images' ids; by the names of the image
        files, with or without suffix.

        Args:
            ids: each detection's `image_id`.
            names: its `file_name`.
            origin: the file, for the error message.

        Returns:
            The indices, and whether the ids could have been read as names of other images.

        Raises:
            UserError: there is no such image.
        """
        keys = [str(each) for each in ids]
        own_names = [PurePosixPath(name).name for name in names if name is not None]
        if len(own_names) == len(ids) and self._by_name.keys() >= set(own_names):
            return [self._by_name[name] for name in own_names], False
        by_stem = None
        if self._by_stem.keys() >= set(keys):
            by_stem = [self._by_stem[key] for key in keys]
        if self._by_id.keys() >= set(keys):
            by_id = [self._by_id[key] for key in keys]
            return by_id, by_stem is not None and by_stem != by_id
        if by_stem is not None:
            return by_stem, False
        raise self._unknown(ids, origin)

    def _unknown(self, ids: Sequence[Id], origin: str) -> UserError:
        known = self._by_id if any(str(each) in self._by_id for each in ids) else self._by_stem
        entry, unknown = next(pair for pair in enumerate(ids) if str(pair[1]) not in known)
        first = self._images[0]
        return UserError(
            f"{origin}: entry {entry}: image_id {shorten(unknown, quoted=True)} is no image of"
            f" --truth, neither by id nor by file name, such as {first.id!r} or"
            f" '{shorten(first.file_name)}'"
        )


def _unique(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Key -> index, without keys of several images."""
    found: dict[str, set[int]] = {}
    for key, index in pairs:
        found.setdefault(key, set()).add(index)
    return {key: min(indices) for key, indices in found.items() if len(indices) == 1}


@dataclass(frozen=True)
class Truth:
    """The test images of foreign detections.

    Attributes:
        path: the file.
        samples: the images in the order of their ids, which is pycocotools' order. Boxes are
            float64, neither clipped nor repaired; `file_size` is 0 if the image was not found.
        class_names: names of the categories, in the order of their ids.
        labels: category id -> index of the class.
        images: finds images by what a detection calls them.
        groups: what the bootstrap draws; None: single images.
    """

    path: Path
    samples: list[Sample]
    class_names: tuple[str, ...]
    labels: Mapping[int, int]
    images: ImageIndex
    groups: Groups | None


def read_json_file(expected: type[Value], path: Path, title: str = "") -> Value:
    """`validate_json` for a file of another program, in any encoding.

    Raises:
        UserError: it cannot be read, or does not hold such a value.
    """
    named = f"{title} {path}".strip()
    try:
        text = decode_text(read_file(path, title, MAX_BYTES)).text
    except ValueError as error:
        raise UserError(f"{named}: {error}") from None
    return validate_json(expected, text, named)


def read_truth(path: Path, group_key: str | None = None) -> Truth:
    """Read the test images and their objects.

    Args:
        path: COCO file of annotations.
        group_key: key of its images by which the bootstrap groups them; None: `video_id`, if all
            images have one; `none`: no groups.

    Raises:
        UserError: the file is not such a file, or contradicts itself.
    """
    content = read_json_file(TruthFile, path, "--truth")
    images = sorted(content.images, key=_by_id)
    if len(images) < 2:
        raise UserError(f"--truth {path}: expected at least two images, got {len(images)}")
    categories = sorted(content.categories, key=lambda category: category.id)
    labels = {category.id: index for index, category in enumerate(categories)}
    indices = {str(image.id): index for index, image in enumerate(images)}
    for what, entries, known in (("image", images, indices), ("category", categories, labels)):
        if len(known) < len(entries):
            raise UserError(f"--truth {path}: expected different {what} ids, got one twice")
    names = [category.name for category in categories]
    return Truth(
        path=path,
        samples=_make_samples(path, images, _objects(content, indices, labels, path)),
        class_names=checked_names(names, f"--truth {path}: categories"),
        labels=labels,
        images=ImageIndex(images),
        groups=_find_groups(images, group_key, path),
    )


def _by_id(image: TruthImage) -> tuple[bool, int, str]:
    is_text = isinstance(image.id, str)
    return is_text, 0 if is_text else int(image.id), str(image.id)


def _objects(
    content: TruthFile, indices: Mapping[str, int], labels: Mapping[int, int], path: Path
) -> list[list[tuple[Box, int, bool]]]:
    """Box, label and crowd flag of each image's objects, in the order of the file."""
    objects: list[list[tuple[Box, int, bool]]] = [[] for _ in indices]
    for number, entry in enumerate(content.annotations):
        origin = f"--truth {path}: annotations.{number}"
        if str(entry.image_id) not in indices:
            raise UserError(f"{origin}: image_id {shorten(entry.image_id)} is not in images")
        if entry.category_id not in labels:
            raise UserError(
                f"{origin}: category_id {shorten(entry.category_id)} is not in categories"
            )
        label = labels[entry.category_id]
        objects[indices[str(entry.image_id)]].append((entry.bbox, label, entry.iscrowd == 1))
    if not any(not crowd for of_image in objects for _, _, crowd in of_image):
        raise UserError(f"--truth {path}: expected objects in annotations, got none")
    return objects


def _make_samples(
    path: Path, images: Sequence[TruthImage], objects: Sequence[Sequence[tuple[Box, int, bool]]]
) -> list[Sample]:
    finder = FileFinder()
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    folders = image_folders(root, path, path.stem)
    samples = []
    for image, own in zip(images, objects, strict=True):
        candidates = (finder.find(folder, image.file_name) for folder in folders)
        file = next((each for each in candidates if each is not None), None)
        sample = Sample(
            path=file or Path(image.file_name),
            width=image.width,
            height=image.height,
            boxes=corners([box for box, _, _ in own]),
            labels=np.array([label for _, label, _ in own], np.int64),
            difficult=np.zeros(len(own), np.bool_),
            crowd=np.array([crowd for _, _, crowd in own], np.bool_),
            file_size=file.stat().st_size if file else 0,
        )
        samples.append(sample)
    return samples


def corners(boxes: Sequence[Box]) -> np.ndarray:
    """COCO's boxes as x1 y1 x2 y2, float64 `(n, 4)`."""
    array = np.array(boxes, np.float64).reshape(-1, 4)
    array[:, 2:] += array[:, :2]
    return array


def _find_groups(images: Sequence[TruthImage], key: str | None, path: Path) -> Groups | None:
    if key == "none" or (key is None and not all(_has(image, GROUP_KEY) for image in images)):
        return None
    key = key or GROUP_KEY
    for image in images:
        if not _has(image, key):
            raise UserError(
                f"--group {key}: image {image.id!r} of {path} has no such key"
                f"{nearest(key, image.model_extra or ())}"
            )
    values = [str((image.model_extra or {})[key]) for image in images]
    names, index = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise UserError(
            f"--group {key}: expected at least two groups in {path}, got {len(names)};"
            " --group none draws single images"
        )
    return Groups(key, index)


def _has(image: TruthImage, key: str) -> bool:
    return isinstance((image.model_extra or {}).get(key), (int, str))
