"""YOLO labels: text files of `class x y width height`, centers and sizes relative to the image.

Layouts: `images/<split>/` with `labels/<split>/`; `<split>/images/` with `<split>/labels/`; or a
text file that lists images (`<split>` is its path, or `<split>.txt` is in `data.root`). Polygons
(`class x1 y1 x2 y2 x3 y3 ...`) are read as their bounding boxes.
"""

import math
from pathlib import Path

import yaml

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import DatasetReport, RawAnnotation, build_samples
from utils.data.readers.base import SplitContents
from utils.data.readers.file_finder import FileFinder

CLASS_FILES = (
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "classes.txt",
    "obj.names",
    "labels/classes.txt",
)
LIMIT = 2.0  # coordinates beyond this are not rounding errors: the file may hold pixels


def read(
    data: DataConfig, split: str, input_size: tuple[int, int], progress: bool = True
) -> SplitContents:
    """Read a split.

    An image without a label file has no objects, as usual in the YOLO family, and is counted.
    An image whose label file has an unreadable line is skipped. Samples are sorted by name, or in
    the order of the list. Class names are `data.classes`, else `names` in data.yaml, else
    classes.txt. See `Reader` for arguments and errors.
    """
    report = DatasetReport()
    root = Path(data.root)
    class_names = read_class_names(data.classes) or _read_class_names(root)
    finder = FileFinder(frozenset({".txt"}))
    annotations = []
    for image in _find_images(root, split, report):
        labels = finder.find(label_folder(image.parent), image.stem + ".txt")
        if labels is None:
            report.note("annotation missing", image)
            annotations.append(RawAnnotation(image, str(image), relative=True))
            continue
        try:
            annotations.append(_read_annotation(image, labels, class_names))
        except ValueError as error:
            report.note("annotation unreadable", str(error))
    return SplitContents(build_samples(annotations, report, progress=progress), class_names, report)


def label_folder(image_folder: Path) -> Path:
    """The label folder of an image folder: its last `images` part becomes `labels`."""
    parts = list(image_folder.parts)
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return image_folder


def _find_images(root: Path, split: str, report: DatasetReport) -> list[Path]:
    finder = FileFinder()
    folders = (root / "images" / split, root / split / "images")
    for folder in folders:
        if folder.is_dir():
            return finder.list_files(folder)
    for list_file in (Path(split), root / split, root / f"{split}.txt"):
        if list_file.is_file():
            return _read_image_list(list_file, root, finder, report)
    known = [path.name for path in (*root.glob("*"), *root.glob("images/*")) if path.is_dir()]
    hint = nearest(split, sorted(known)) if known else "; set data.root=FOLDER"
    raise UserError(f"data: no folder {folders[0]}, {folders[1]} nor list {split}.txt{hint}")


def _read_image_list(
    list_file: Path, root: Path, finder: FileFinder, report: DatasetReport
) -> list[Path]:
    """The images in a list, whose paths are relative to it, to `root` or to the current folder."""
    images = []
    for line in read_lines(list_file):
        for base in (list_file.parent, root, Path()):
            path = base / line  # an absolute path replaces the base
            image = finder.find(path.parent, path.name)
            if image is not None:
                images.append(image)
                break
        else:
            report.note("image missing", line)
    return images


def _read_class_names(root: Path) -> tuple[str, ...]:
    for name in CLASS_FILES:
        path = root / name
        if path.is_file():
            if path.suffix in (".yaml", ".yml"):
                return _class_names_from_yaml(path)
            return checked_names(read_lines(path), str(path))
    raise UserError(
        f"data.classes: expected a list of class names, or {root / 'data.yaml'} or classes.txt "
        "with it"
    )


def _class_names_from_yaml(path: Path) -> tuple[str, ...]:
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


def _read_annotation(image: Path, labels: Path, class_names: tuple[str, ...]) -> RawAnnotation:
    """Raises a ValueError with `file:line` for a line that cannot be read."""
    annotation = RawAnnotation(image, str(labels), relative=True)
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError(str(labels)) from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            source = f"{labels}:{number}"
            word, *coordinates = line.split()
            box = _parse_box(coordinates, source)
            annotation.add(box, _parse_label(word, class_names, source))
    return annotation


def _parse_box(words: list[str], source: str) -> tuple[float, float, float, float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(source) from None
    if not all(math.isfinite(value) and abs(value) <= LIMIT for value in values):
        raise ValueError(source)
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        return min(xs), min(ys), max(xs), max(ys)
    raise ValueError(source)


def _parse_label(word: str, class_names: tuple[str, ...], source: str) -> int:
    try:
        label = float(word)  # some tools write 3.0
    except ValueError:
        raise ValueError(source) from None
    if not math.isfinite(label):
        raise ValueError(source)
    if label != int(label) or not 0 <= label < len(class_names):
        raise UserError(
            f"{source}: class {word} is not in the class list; expected 0 to {len(class_names) - 1}"
        )
    return int(label)
