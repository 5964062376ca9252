"""YOLO text labels: one `class x y width height` a line, center and size as shares of the picture.

Layouts: `images/<split>/` with `labels/<split>/`, `<split>/images/` with `<split>/labels/`, or a text file that lists
images (`<split>` is its path, or `<split>.txt` lies in `data.root`). Polygons (`class x1 y1 x2 y2 x3 y3 ...`) are
read as the box around them.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import yaml

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import Labeled, Report, build_samples
from utils.data.files import FileFinder
from utils.data.sample import Sample

NAME_FILES = (
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "classes.txt",
    "obj.names",
    "labels/classes.txt",
)
FAR = 2.0  # shares beyond this are no rounding: the file holds pixels or something else


def read(
    data: DataConfig, split: str, progress: bool = True
) -> tuple[list[Sample], tuple[str, ...], Report]:
    """Read the split `split`.

    An image without a label file is one without objects, as everywhere in the YOLO family, and counted. An image
    whose label file has a line that cannot be read is left out.

    Returns:
        records sorted by name (or in the list's order); class list (`data.classes`, else `names` of data.yaml, else
        classes.txt); report.

    Raises:
        UserError: folder or class list missing, or a class number beyond the class list.
    """
    report = Report()
    names = read_class_names(data.classes) or _names(Path(data.root))
    finder = FileFinder(frozenset({".txt"}))
    items = []
    for picture in _pictures(Path(data.root), split, report):
        label = finder.find(label_folder(picture.parent), picture.stem + ".txt")
        if label is None:
            report.note("annotation missing", picture)
            items.append(Labeled(picture, str(picture), relative=True))
            continue
        try:
            items.append(_labeled(picture, label, names))
        except ValueError as error:
            report.note("annotation unreadable", str(error))
    return build_samples(items, report, progress=progress), names, report


def label_folder(pictures: Path) -> Path:
    """Where the labels of a folder of images are: its last `images` part becomes `labels`; without one, itself."""
    parts = list(pictures.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].lower() == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return pictures


def _pictures(root: Path, split: str, report: Report) -> Iterator[Path]:
    finder = FileFinder()
    for folder in (root / "images" / split, root / split / "images"):
        if folder.is_dir():
            yield from finder.all(folder)
            return
    listing = next(
        (path for path in (Path(split), root / split, root / f"{split}.txt") if path.is_file()),
        None,
    )
    if listing is None:
        known = sorted(
            path.name
            for base in (root, root / "images")
            for path in base.glob("*")
            if path.is_dir()
        )
        hint = nearest(split, known) if known else "; set data.root=FOLDER"
        raise UserError(
            f"data: no folder {root / 'images' / split}, {root / split / 'images'} nor list {split}.txt{hint}"
        )
    for line in read_lines(listing):
        places = (
            base / line for base in (listing.parent, root, Path())
        )  # an absolute path replaces its base
        found = next(
            filter(None, (finder.find(place.parent, place.name) for place in places)), None
        )
        if found is None:
            report.note("image missing", line)
        else:
            yield found


def _names(root: Path) -> tuple[str, ...]:
    path = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    if path is None:
        raise UserError(
            f"data.classes: expected a list of class names, or {root / 'data.yaml'} or classes.txt with it"
        )
    if path.suffix not in (".yaml", ".yml"):
        return checked_names(read_lines(path), str(path))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise UserError(
            f"{path}: names: expected a list of class names, or a map from 0, 1, 2 ... to them"
        )
    return checked_names([str(name) for name in names], f"{path}: names")


def _labeled(picture: Path, label: Path, names: tuple[str, ...]) -> Labeled:
    """Raises ValueError naming `file:line` for a line that is no box."""
    item = Labeled(picture, str(label), relative=True)
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError(str(label)) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{label}:{number}"
        item.boxes.append(_box(line.split()[1:], where))
        item.labels.append(_label(line.split()[0], names, where))
        item.difficult.append(False)
        item.crowd.append(False)
    return item


def _box(words: list[str], where: str) -> tuple[float, float, float, float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(where) from None
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if not (len(values) == 4 or polygon) or not all(
        math.isfinite(value) and abs(value) <= FAR for value in values
    ):
        raise ValueError(where)
    if polygon:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _label(word: str, names: tuple[str, ...], where: str) -> int:
    try:
        label = float(word)  # some tools write 3.0
    except ValueError:
        raise ValueError(where) from None
    if label != int(label) or not 0 <= label < len(names):
        raise UserError(
            f"{where}: class {word} is not in the class list; expected 0 to {len(names) - 1}"
        )
    return int(label)
