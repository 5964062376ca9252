"""COCO JSON: `annotations/instances_<split>.json`, images in `<split>/` or `images/<split>/`.

Also `<split>/_annotations.coco.json` beside the images (Roboflow), and single JSON files in the
folder (Label Studio) or in `annotations` (CVAT).

https://cocodataset.org/#format-data
"""

import functools
import json
import os
from collections.abc import Collection
from pathlib import Path, PureWindowsPath
from typing import Any

from utils.core.class_names import checked_names, name_problem, read_class_names
from utils.core.errors import UserError, shorten
from utils.core.inputs import ReadError, is_file, read_file
from utils.core.schema import DataConfig
from utils.core.text import decode_text
from utils.data.checks import RawAnnotation, build_samples
from utils.data.dataset_report import DatasetReport
from utils.data.readers.base import SplitContents, class_index, require_folder
from utils.data.readers.coco_files import REQUIRED_KEYS, image_folders, json_file
from utils.data.readers.file_finder import FileFinder
from utils.data.readers.values import (
    BadValue,
    parse_flag,
    parse_id,
    parse_number,
    parse_size,
    shown,
)


def read(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    progress: bool = True,
    report: DatasetReport | None = None,
) -> SplitContents:
    """Read a split: a name (`val2017`), or the path of a JSON file, relative to `data.root` or not.

    An image without annotations is kept as one without objects; an image with an annotation that
    has no usable `bbox` is skipped. Samples are in the order of the file's `images`. Class names
    are `data.classes`, else the categories of the training split, sorted by id; labels are indices
    into them, whatever the category ids. See `Reader` for arguments and errors.
    """
    report = report or DatasetReport()
    root = Path(data.root)
    if not is_file(root):
        require_folder(root, "data.root")
    path = json_file(data, split)
    content, encoding = _load(path)
    report.note_encoding(path, encoding)
    categories = _read_categories(content, path)
    repeats = len(content["categories"]) - len(set(categories.values()))
    report.note("category listed twice", path, repeats)
    class_names = read_class_names(data.classes, report.note_encoding)
    if class_names is None:
        class_names = _train_class_names(data, path, content, categories)
    images = _find_images(content, path, image_folders(root, path, split), report)
    objects = _Objects(content, images, categories, class_names, report)
    for index, entry in enumerate(content["annotations"]):
        name = entry["id"] if type(entry.get("id")) is int else f"[{index}]"
        try:
            objects.add(entry, f"{path} annotation {name}")
        except UserError as error:
            report.refuse(error)
    usable = {  # several ids may stand for one image
        annotation.path: annotation
        for annotation in images.values()
        if annotation is not None and annotation.path not in objects.unusable
    }
    samples = build_samples(list(usable.values()), report, progress=progress)
    return SplitContents(samples, class_names, report)


def _read_categories(content: dict[str, Any], path: Path) -> dict[str, str]:
    """Category id -> name, in the order of the ids, numbers first.

    Raises:
        UserError: an id or a name cannot be used, or an id has two names.
    """
    categories: dict[str, str] = {}
    for index, entry in enumerate(content["categories"]):
        source = f"{path} categories[{index}]"
        problem = name_problem(entry["name"])
        if problem:
            raise UserError(f"{source}: {problem}")
        category_id = _parse_own_id(entry, source)
        first = categories.setdefault(category_id, entry["name"])
        if first != entry["name"]:
            raise UserError(f"{source}: the id {shown(entry['id'])} stands for '{first}', too")
    return dict(sorted(categories.items(), key=_by_id))


def _by_id(category: tuple[str, str]) -> tuple[bool, int, str]:
    is_number = category[0].isdecimal() and len(category[0]) < 20
    return not is_number, int(category[0]) if is_number else 0, category[0]


def _parse_own_id(entry: dict[str, Any], source: str) -> str:
    try:
        return parse_id(entry["id"], f"{source}: id")
    except BadValue as error:
        raise UserError(str(error)) from None


def _parse_reference(entry: dict[str, Any], key: str) -> str | None:
    """The id that an annotation refers to; `None` if it is none."""
    try:
        return parse_id(entry.get(key), key)
    except BadValue:
        return None


def _find_images(
    content: dict[str, Any], path: Path, folders: list[Path], report: DatasetReport
) -> dict[str, RawAnnotation | None]:
    """Image id -> an annotation without objects yet; `None` if the image file is missing.

    Ids of the same file share its annotation.

    Raises:
        UserError: an id cannot be used, or stands for two images.
    """
    finder = FileFinder(report=report)
    annotations: dict[str, RawAnnotation | None] = {}
    by_path: dict[Path, RawAnnotation] = {}
    names: dict[str, Any] = {}
    for index, entry in enumerate(content["images"]):
        source = f"{path} images[{index}]"
        image_id, name = _parse_own_id(entry, source), entry["file_name"]
        first = names.setdefault(image_id, name)
        if first != name:
            raise UserError(f"{source}: the id {shown(entry['id'])} stands for {shown(first)}, too")
        if image_id in annotations:
            report.note("image listed twice", source)
            continue
        annotations[image_id] = None
        image_path = _find_image(name, folders, finder)
        if image_path is None:
            is_text = isinstance(name, str)
            report.note("image missing", folders[0] / name if is_text else f"{source}: file_name")
            continue
        size = parse_size(entry.get("width"), entry.get("height"))
        annotation = RawAnnotation(image_path, f"{path} image {image_id}", size)
        shared = by_path.setdefault(image_path, annotation)
        annotations[image_id] = shared
        if shared is not annotation:
            report.note("image listed twice", source)
            report.note("size differs from annotation", source, int(size != shared.size))
    return annotations


def _find_image(name: Any, folders: list[Path], finder: FileFinder) -> Path | None:
    if not isinstance(name, str):
        return None
    path = next(filter(None, (finder.find(folder, name) for folder in folders)), None)
    if path is None and PureWindowsPath(name).root:  # also begins with a slash
        path = finder.find_by_end(folders, name)
    return path


class _Objects:
    """Adds annotations to the images of a split.

    Args:
        content: the JSON file.
        images: image id -> its annotation; `None` if the image is missing.
        categories: category id -> name.
        class_names: what the labels index.
        report: report that counts the repairs.

    Attributes:
        unusable: images with an annotation that cannot be read.
    """

    def __init__(
        self,
        content: dict[str, Any],
        images: dict[str, RawAnnotation | None],
        categories: dict[str, str],
        class_names: tuple[str, ...],
        report: DatasetReport,
    ) -> None:
        self.images = images
        self.categories = categories
        self.class_names = class_names
        self.report = report
        self.unusable: set[Path] = set()
        self.given_ids = {  # as they stand in the file
            "image_id": {entry["id"] for entry in content["images"]},
            "category_id": {entry["id"] for entry in content["categories"]},
        }

    def add(self, entry: dict[str, Any], source: str) -> None:
        """Add one annotation; an image with one that cannot be used becomes unusable.

        Raises:
            UserError: its category is unknown.
        """
        image_id = self._find_id(entry, "image_id", self.images, source)
        if image_id is None:
            self.report.note("annotation without an image", source)
            return
        annotation = self.images[image_id]
        if annotation is None or annotation.path in self.unusable:
            return
        category_id = self._find_id(entry, "category_id", self.categories, source)
        if category_id is None:
            raise UserError(
                f"{source}: category_id: expected one of {shorten(', '.join(self.categories))}, "
                f"got {shown(entry.get('category_id'))}"
            )
        label = class_index(self.categories[category_id], self.class_names, source)
        try:
            box = _box(entry.get("bbox"))
            crowd = parse_flag(entry.get("iscrowd", 0), "iscrowd")
        except BadValue as error:
            self.report.note("annotation unreadable", f"{source}: {error}")
            self.unusable.add(annotation.path)
            return
        if str in map(type, (*entry["bbox"], entry.get("iscrowd"))):
            self.report.note("number in quotes", source)
        annotation.add(box, label, crowd=crowd)

    def _find_id(
        self, entry: dict[str, Any], key: str, known: Collection[str], source: str
    ) -> str | None:
        """The id that an annotation refers to; `None` if there is no such id."""
        found = _parse_reference(entry, key)
        if found not in known:
            return None
        if entry[key] not in self.given_ids[key]:
            self.report.note("identifier in quotes", f"{source}: {key}")
        return found


def _box(bbox: Any) -> tuple[float, float, float, float]:
    """COCO's x, y, width, height -> x1 y1 x2 y2."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        found = f"{len(bbox)} values" if isinstance(bbox, list) else shown(bbox)
        raise BadValue(f"bbox: expected [x, y, width, height], got {found}")
    x, y, width, height = [parse_number(value, "bbox") for value in bbox]
    return x, y, x + width, y + height


def read_ids(data: DataConfig, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids of a split as they stand in its file: by the real path of the image, by category.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    path = json_file(data, split)
    content, _ = _load(path)
    folders = image_folders(Path(data.root), path, split)
    images = _find_images(content, path, folders, DatasetReport())
    given = {parse_id(entry["id"], "id"): entry["id"] for entry in content["images"]}
    by_path = {
        os.path.realpath(annotation.path): given[key]
        for key, annotation in images.items()
        if annotation is not None
    }
    names = {entry["name"]: entry["id"] for entry in reversed(content["categories"])}
    return by_path, names


def _load(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a file, and its encoding."""
    try:
        text, encoding = decode_text(read_file(path))
        content = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        reason = "too many levels" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: not readable as JSON: {reason}") from None
    for name, keys in REQUIRED_KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{path}: not COCO annotations: expected '{name}' to be a list")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not entry.keys() >= keys:
                with_keys = f" with {' and '.join(sorted(keys))}" if keys else ""
                raise UserError(f"{path} {name}[{index}]: expected an object{with_keys}")
    return content, encoding


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadValue(f"the key {shown(twice)} is set twice in an object")
    return values


def _train_class_names(
    data: DataConfig, path: Path, content: dict[str, Any], categories: dict[str, str]
) -> tuple[str, ...]:
    """Names of the training split's categories; those of `path` if that split has no file."""
    try:
        train = json_file(data, data.train)
    except ReadError:
        raise
    except UserError:
        train = path
    if train != path:
        return _read_names(train, train.stat().st_mtime_ns)
    return _class_names(content, categories, path)


def _class_names(
    content: dict[str, Any], categories: dict[str, str], path: Path
) -> tuple[str, ...]:
    """The names of the categories, without those that only group others, as Roboflow's first."""
    groups = [
        entry.get("supercategory")
        for entry in content["categories"]
        if entry.get("supercategory") != entry["name"]  # such a class is its own group
    ]
    used = {_parse_reference(entry, "category_id") for entry in content["annotations"]}
    names = [name for key, name in categories.items() if name not in groups or key in used]
    return checked_names(list(dict.fromkeys(names)), f"{path}: categories")


@functools.lru_cache(maxsize=4)
def _read_names(path: Path, modified: int) -> tuple[str, ...]:
    """Cached, since parsing may take seconds; `modified` makes a changed file a new entry."""
    content, _ = _load(path)
    return _class_names(content, _read_categories(content, path), path)
