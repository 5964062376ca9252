"""COCO JSON: `annotations/instances_<split>.json`, images in `<split>/` or `images/<split>/`.

https://cocodataset.org/#format-data
"""

import functools
import json
import math
from pathlib import Path
from typing import Any

from utils.core.class_names import checked_names, read_class_names
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import DatasetReport, RawAnnotation, build_samples
from utils.data.readers.base import SplitContents, class_index
from utils.data.readers.file_finder import FileFinder

REQUIRED_KEYS = {  # list -> keys that each of its entries must have
    "images": ("file_name", "id"),
    "annotations": (),
    "categories": ("id", "name"),
}


def read(
    data: DataConfig, split: str, input_size: tuple[int, int], progress: bool = True
) -> SplitContents:
    """Read a split: a name (`val2017`), or the path of a JSON file, relative to `data.root` or not.

    An image without annotations is kept as one without objects; an image with an annotation that
    has no usable `bbox` is skipped. Samples are in the order of the file's `images`. Class names
    are `data.classes`, else the categories of the training split, sorted by id; labels are indices
    into them, whatever the category ids. See `Reader` for arguments and errors.
    """
    report = DatasetReport()
    path = json_file(data, split)
    content = _load(path)
    class_names = read_class_names(data.classes) or _train_class_names(data, path, content)
    annotations = _find_images(content, path, _image_folders(Path(data.root), path, split), report)
    categories = {category["id"]: str(category["name"]) for category in content["categories"]}
    for entry in content["annotations"]:
        source = f"{path} annotation {entry.get('id')}"
        image_id = entry.get("image_id")
        if image_id not in annotations:
            report.note("annotation without an image", source)
            continue
        annotation = annotations[image_id]
        if annotation is None:
            continue
        category = _category(entry, categories, source)
        box = _box(entry.get("bbox"))
        if box is None:
            report.note("annotation unreadable", source)
            annotations[image_id] = None
            continue
        label = class_index(category, class_names, source)
        annotation.add(box, label, crowd=bool(entry.get("iscrowd", 0)))
    usable = [annotation for annotation in annotations.values() if annotation is not None]
    return SplitContents(build_samples(usable, report, progress=progress), class_names, report)


def _find_images(
    content: dict[str, Any], path: Path, folders: list[Path], report: DatasetReport
) -> dict[Any, RawAnnotation | None]:
    """Image id -> an annotation without objects yet; `None` if the image file is missing."""
    finder = FileFinder()
    annotations: dict[Any, RawAnnotation | None] = {}
    for entry in content["images"]:
        image_id = entry["id"]
        annotations[image_id] = None
        for folder in folders:
            image_path = finder.find(folder, entry["file_name"])
            if image_path is not None:
                size = (entry.get("width") or 0, entry.get("height") or 0)
                source = f"{path} image {image_id}"
                annotations[image_id] = RawAnnotation(image_path, source, size)
                break
        else:
            report.note("image missing", folders[0] / entry["file_name"])
    return annotations


def _category(entry: dict[str, Any], categories: dict[Any, str], source: str) -> str:
    """The name of an annotation's category."""
    category_id = entry.get("category_id")
    if category_id not in categories:
        known = ", ".join(map(str, categories))
        raise UserError(f"{source}: no category {category_id}; expected one of the ids {known}")
    return categories[category_id]


def _box(bbox: Any) -> tuple[float, float, float, float] | None:
    """COCO's x, y, width, height -> x1 y1 x2 y2; `None` if `bbox` is not of that form."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in bbox):
        return None
    x, y, width, height = bbox
    return x, y, x + width, y + height


def json_file(data: DataConfig, split: str) -> Path:
    """The annotation file of a split.

    Raises:
        UserError: the split has no annotation file.
    """
    root = Path(data.root)
    folder = root / "annotations"
    if split.endswith(".json"):
        candidates = [Path(split), root / split, folder / split]
    else:
        candidates = [folder / f"instances_{split}.json", folder / f"{split}.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(file.stem.removeprefix("instances_") for file in folder.glob("*.json"))
    if known:
        hint = nearest(split, known)
    else:
        hint = "; set data.root=FOLDER to a folder with annotations/ and images"
    raise UserError(f"data: no COCO file {candidates[0]} for split '{split}'{hint}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    for name, keys in REQUIRED_KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not _is_list_of_objects(entries, keys):
            with_keys = f" of objects with {' and '.join(keys)}" if keys else ""
            raise UserError(
                f"{path}: not COCO annotations: expected '{name}' to be a list{with_keys}"
            )
    return content


def _is_list_of_objects(entries: Any, keys: tuple[str, ...]) -> bool:
    if not isinstance(entries, list):
        return False
    return all(isinstance(entry, dict) and entry.keys() >= set(keys) for entry in entries)


def _train_class_names(data: DataConfig, path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Names of the training split's categories; those of `path` if that split has no file."""
    try:
        train = json_file(data, data.train)
    except UserError:
        train = path
    if train == path:
        return _category_names(content, path)
    return _read_category_names(train, train.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_category_names(path: Path, modified: int) -> tuple[str, ...]:
    """Cached, since parsing may take seconds; `modified` makes a changed file a new entry."""
    return _category_names(_load(path), path)


def _category_names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = dict.fromkeys(str(category["name"]) for category in categories)
    return checked_names(list(names), f"{path}: categories")


def _image_folders(root: Path, path: Path, split: str) -> list[Path]:
    """Folders where the images may be, the most likely first."""
    file_name = path.stem.removeprefix("instances_")
    names = [file_name] if split.endswith(".json") else [split, file_name]
    folders = []
    for name in dict.fromkeys(names):
        folders += [root / name, root / "images" / name]
    return [*folders, root / "images", root, path.parent]
