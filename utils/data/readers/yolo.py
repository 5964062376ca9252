"""YOLO labels: text files of `class x y width height`, centers and sizes relative to the image.

Layouts: `images/<split>/` with `labels/<split>/`; `<split>/images/` with `<split>/labels/`; or a
text file that lists images (`<split>` is its path, or `<split>.txt` is in `data.root`). Polygons
(`class x1 y1 x2 y2 x3 y3 ...`) are read as their bounding boxes.
"""

from pathlib import Path
from typing import Any

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest, shorten
from utils.core.files import ReadError, find_first, is_folder, is_outage, list_folder
from utils.core.schema import DataConfig
from utils.core.text import read_text, split_lines
from utils.core.yaml_text import parse_yaml
from utils.data.checks import DatasetReport, RawAnnotation, build_samples
from utils.data.readers.base import SplitContents, read_image_list, require_folder
from utils.data.readers.file_finder import FileFinder
from utils.data.readers.values import BadValue, parse_number, shown

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

    An image without a label file has no objects, as usual in the YOLO family, and is counted; if
    none has one, that is an error. An image whose label file has an unreadable line is skipped.
    Samples are sorted by name, or in the order of the list. Class names are `data.classes`, else
    `names` in data.yaml, else classes.txt. See `Reader` for arguments and errors.
    """
    report = DatasetReport()
    root = Path(data.root)
    require_folder(root, "data.root")
    class_names = read_class_names(data.classes, report.note_encoding)
    if class_names is None:
        class_names = _read_class_names(root, report)
    finder = FileFinder(frozenset({".txt"}))
    annotations = []
    images = _find_images(root, split, report)
    for image in images:
        labels = finder.find(label_folder(image.parent), image.stem + ".txt")
        if labels is None:
            report.note("annotation missing", image)
            annotations.append(RawAnnotation(image, str(image), relative=True))
            continue
        try:
            annotations.append(_read_annotation(image, labels, class_names, report))
        except (BadValue, ReadError) as error:
            if is_outage(error):
                raise
            report.note("annotation unreadable", str(error))
    if images and report.counts["annotation missing"] == len(images):
        raise UserError(
            f"data: none of the {len(images)} images in split '{split}' has a label file; "
            f"expected, for example, {label_folder(images[0].parent) / images[0].stem}.txt"
        )
    return SplitContents(build_samples(annotations, report, progress=progress), class_names, report)


def label_folder(image_folder: Path) -> Path:
    """The label folder of an image folder: its last `images` part becomes `labels`."""
    parts = list(image_folder.parts)
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return image_folder


def _find_images(root: Path, split: str, report: DatasetReport) -> list[Path]:
    finder = FileFinder(report=report)
    folders = (root / "images" / split, root / split / "images")
    for folder in folders:
        if is_folder(folder):
            return finder.list_files(folder)
    lists = (Path(split), root / split, root / f"{split}.txt")
    list_file = find_first(path for path in lists if not is_folder(path))
    if list_file is not None:
        return _listed_images(list_file, root, finder, report)
    known = [
        name
        for parent in (root, root / "images")
        for name in list_folder(parent)
        if is_folder(parent / name)
    ]
    hint = nearest(split, sorted(known)) if known else "; set data.root=FOLDER"
    raise UserError(f"data: no folder {folders[0]}, {folders[1]} nor list {split}.txt{hint}")


def _listed_images(
    list_file: Path, root: Path, finder: FileFinder, report: DatasetReport
) -> list[Path]:
    """The images in a list, whose paths are relative to it, to `root` or to the current folder."""
    images = []
    for line in read_image_list(list_file, report):
        for folder in (list_file.parent, root, Path()):
            image = finder.find(folder, line)  # an absolute path replaces the folder
            if image is not None:
                images.append(image)
                break
        else:
            report.note("image missing", line)
    return images


def _read_class_names(root: Path, report: DatasetReport) -> tuple[str, ...]:
    path = find_first(root / name for name in CLASS_FILES)
    if path is None:
        raise UserError(
            f"data.classes: expected a list of class names, or {root / 'data.yaml'} or classes.txt "
            "with it"
        )
    if path.suffix not in (".yaml", ".yml"):
        return checked_names(read_lines(path, report.note_encoding), str(path))
    text, encoding = read_text(path)
    report.note_encoding(path, encoding)
    return _class_names_from_yaml(parse_yaml(text, str(path)), path)


def _class_names_from_yaml(content: Any, path: Path) -> tuple[str, ...]:
    """`names`, a list, or a mapping from index to name; `nc`, if given, must be their number."""
    listed = content.get("names") if isinstance(content, dict) else None
    names = _by_index(listed) if isinstance(listed, dict) else listed
    if not isinstance(names, list):
        raise UserError(
            f"{path}: names: expected a list of class names, or a map from 0, 1, 2 ... to them"
        )
    # numbers are usual names of digits
    names = [str(name) if type(name) is int else name for name in names]
    count = content.get("nc", len(names))
    if str(count) != str(len(names)):
        raise UserError(f"{path}: nc: expected {len(names)} as in names, got {shown(count)}")
    return checked_names(names, f"{path}: names")


def _by_index(names: dict[Any, Any]) -> list[Any] | None:
    """The values of the keys 0, 1, 2 ..., integers or text; `None` if the keys are others."""
    by_key = {str(key).strip(): name for key, name in names.items()}
    keys = [str(index) for index in range(len(names))]
    return [by_key[key] for key in keys] if by_key.keys() == set(keys) else None


def _read_annotation(
    image: Path, labels: Path, class_names: tuple[str, ...], report: DatasetReport
) -> RawAnnotation:
    """Raises a BadValue with `file:line` for a line that cannot be read."""
    annotation = RawAnnotation(image, str(labels), relative=True)
    text, encoding = read_text(labels)
    report.note_encoding(labels, encoding)
    for number, line in enumerate(split_lines(text), 1):
        if line:
            source = f"{labels}:{number}"
            word, *coordinates = line.split()
            label = _parse_label(word, class_names, source)
            annotation.add(_parse_box(coordinates, source), label)
    return annotation


def _parse_box(words: list[str], source: str) -> tuple[float, float, float, float]:
    values = [parse_number(word, source) for word in words]
    largest = max(values, key=abs, default=0.0)
    if abs(largest) > LIMIT:
        raise BadValue(f"{source}: expected fractions of the image's size, got {largest:g}")
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        return min(xs), min(ys), max(xs), max(ys)
    raise BadValue(
        f"{source}: expected 4 numbers after the class, or a polygon, got {len(values)} numbers"
    )


def _parse_label(word: str, class_names: tuple[str, ...], source: str) -> int:
    label = parse_number(word, f"{source}: class")  # some tools write 3.0
    if label != int(label) or not 0 <= label < len(class_names):
        raise UserError(
            f"{source}: class {shorten(word)} is not in the class list; "
            f"expected 0 to {len(class_names) - 1}"
        )
    return int(label)
