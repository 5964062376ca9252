"""COCO JSON: `annotations/instances_<split>.json` with images in `<split>/` or `images/<split>/`.

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
from utils.data.checks import Labeled, Report, build_samples
from utils.data.files import FileFinder, label_of
from utils.data.sample import Sample


def read(
    data: DataConfig, split: str, progress: bool = True
) -> tuple[list[Sample], tuple[str, ...], Report]:
    """Read the split `split`: a name (`val2017`), or the path of a JSON file, as given or below `data.root`.

    An image without annotations is kept as one without objects. An image with an annotation that has no usable
    `bbox` is left out. Labels follow the class list, whatever the category ids are.

    Returns:
        records in the order of the file's `images`; class list (`data.classes`, else the categories of the training
        split's file, by id); report.

    Raises:
        UserError: file missing or not COCO JSON, or an annotation's class is not in the class list.
    """
    report = Report()
    path = json_file(data, split)
    content = _load(path)
    names = read_class_names(data.classes) or _names_of_train(data, path, content)
    categories = {category["id"]: str(category["name"]) for category in content["categories"]}
    finder, folders = FileFinder(), _picture_folders(Path(data.root), path, split)
    items: dict[Any, Labeled | None] = {}
    for image in content["images"]:
        found = (finder.find(folder, image["file_name"]) for folder in folders)
        picture = next(filter(None, found), None)
        if picture is None:
            report.note("image missing", folders[0] / image["file_name"])
        size = (image.get("width") or 0, image.get("height") or 0)
        items[image["id"]] = (
            Labeled(picture, f"{path} image {image['id']}", size=size) if picture else None
        )
    for row in content["annotations"]:
        _add(items, row, categories, names, path, report)
    return (
        build_samples([item for item in items.values() if item], report, progress=progress),
        names,
        report,
    )


def _add(
    items: dict, row: dict, categories: dict, names: tuple[str, ...], path: Path, report: Report
) -> None:
    """Put one annotation to its image; a row without a usable box takes its image out of `items`."""
    where = f"{path} annotation {row.get('id')}"
    if row.get("image_id") not in items:
        report.note("annotation of no image", where)
        return
    item = items[row["image_id"]]
    if item is None:
        return
    if row.get("category_id") not in categories:
        known = ", ".join(map(str, categories))
        raise UserError(
            f"{where}: no category {row.get('category_id')}; expected one of the ids {known}"
        )
    box = row.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        report.note("annotation unreadable", where)
        items[row["image_id"]] = None
        return
    x, y, width, height = box
    item.boxes.append((x, y, x + width, y + height))
    item.labels.append(label_of(categories[row["category_id"]], names, where))
    item.difficult.append(False)
    item.crowd.append(bool(row.get("iscrowd", 0)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def json_file(data: DataConfig, split: str) -> Path:
    """The annotation file of a split.

    Raises:
        UserError: there is none.
    """
    root = Path(data.root)
    if split.endswith(".json"):
        choices = [Path(split), root / split, root / "annotations" / split]
    else:
        choices = [
            root / "annotations" / f"instances_{split}.json",
            root / "annotations" / f"{split}.json",
        ]
    found = next((path for path in choices if path.is_file()), None)
    if found is not None:
        return found
    known = sorted(
        file.stem.removeprefix("instances_") for file in (root / "annotations").glob("*.json")
    )
    hint = (
        nearest(split, known)
        if known
        else "; set data.root=FOLDER to a folder with annotations/ and images"
    )
    raise UserError(f"data: no COCO file {choices[0]} for split '{split}'{hint}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    for key, needed in (
        ("images", {"id", "file_name"}),
        ("annotations", set()),
        ("categories", {"id", "name"}),
    ):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and needed <= row.keys() for row in rows
        ):
            keys = f" of objects with {' and '.join(sorted(needed))}" if needed else ""
            raise UserError(f"{path}: not COCO annotations: expected '{key}' to be a list{keys}")
    return content


def _names_of_train(data: DataConfig, path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    try:
        train = json_file(data, data.train)
    except UserError:
        train = path
    return (
        _names(content, path) if train == path else _names_of_file(train, train.stat().st_mtime_ns)
    )


@functools.lru_cache(maxsize=4)
def _names_of_file(path: Path, modified: int) -> tuple[str, ...]:
    """Kept, because the training file may take seconds to parse; `modified` renews it when the file changes."""
    return _names(_load(path), path)


def _names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    rows = sorted(content["categories"], key=lambda row: row["id"])
    return checked_names(
        list(dict.fromkeys(str(row["name"]) for row in rows)), f"{path}: categories"
    )


def _picture_folders(root: Path, path: Path, split: str) -> list[Path]:
    name = path.stem.removeprefix("instances_")
    names = dict.fromkeys([name] if split.endswith(".json") else [split, name])
    folders = [folder for name in names for folder in (root / name, root / "images" / name)]
    return [*folders, root / "images", root, path.parent]
