"""YOLO labels: text files of `class x y width height`, centers and sizes relative to the image.

Layouts: the folders and lists that a `data.yaml` (Ultralytics, Roboflow) or `obj.data` (Darknet,
CVAT) names; `images/<split>/` with `labels/<split>/`; `<split>/images/` with `<split>/labels/`; a
text file that lists images (`<split>` is its path, or `<split>.txt` is in `data.root`); else images
and labels in any folders, matched by name. Polygons (`class x1 y1 x2 y2 x3 y3 ...`) are read as
their bounding boxes, and counted. With `kpt_shape` in data.yaml, keypoints follow each box.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import ReadError, find_first, is_folder, is_outage, list_folder
from utils.core.schema import DataConfig
from utils.core.text import read_text, split_lines
from utils.data.checks import RawAnnotation, build_samples
from utils.data.dataset_report import DatasetReport
from utils.data.readers.base import SplitContents, read_image_list
from utils.data.readers.file_finder import FileFinder
from utils.data.readers.folder_tree import SPLIT_NAMES, FolderTree
from utils.data.readers.values import BadValue, parse_number, shown
from utils.data.readers.yolo_description import Description, open_root

CLASS_FILES = (
    "classes.txt",
    "obj.names",
    "labels/classes.txt",
    "_darknet.labels",
    "train/_darknet.labels",
)
LIMIT = 2.0  # coordinates beyond this are not rounding errors: the file may hold pixels


def read(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    progress: bool = True,
    report: DatasetReport | None = None,
) -> SplitContents:
    """Read a split.

    An image without a label file has no objects, as usual in the YOLO family, and is counted; if
    none has one, that is an error. An image whose label file has an unreadable line is skipped.
    Samples are sorted by name, or in the order of the list. Class names are `data.classes`, else
    `names` in data.yaml, else classes.txt. See `Reader` for arguments and errors.
    """
    report = report or DatasetReport()
    root, description = open_root(Path(data.root))
    class_names = read_class_names(data.classes, report.note_encoding)
    if class_names is None:
        class_names = _read_class_names(root, description, report)
    labels_of = LabelFinder(root)
    keypoints = description.keypoint_numbers() if description else 0
    annotations = []
    images = _find_images(root, description, split, report)
    for image in images:
        try:
            labels = labels_of(image)
            annotations.append(_read_annotation(image, labels, class_names, keypoints, report))
        except (BadValue, ReadError) as error:
            if is_outage(error):
                raise
            report.note("annotation unreadable", str(error))
        except UserError as error:
            report.refuse(error)
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


class LabelFinder:
    """Finds the label file of an image: in `labels`, beside it, else anywhere below the root.

    An image without labels is background where a `labels` folder stands for its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._finder = FileFinder(frozenset({".txt"}))

    def __call__(self, image: Path) -> Path | None:
        """Return the file; `None` if there is none.

        Raises:
            UserError: two are equally likely.
        """
        expected = label_folder(image.parent)
        for folder in (expected, image.parent):
            labels = self._finder.find(folder, f"{image.stem}.txt")
            if labels is not None:
                return labels
        if expected != image.parent and is_folder(expected):
            return None
        return self._tree.annotation_of(image)

    @cached_property
    def _tree(self) -> FolderTree:
        return FolderTree(self.root, ".txt")


def _find_images(
    root: Path, description: Description | None, split: str, report: DatasetReport
) -> list[Path]:
    finder = FileFinder(report=report)
    described = description.locations(split) if description else None
    if described:
        return [image for path in described for image in _images_at(path, root, finder, report)]
    folders = (root / "images" / split, root / split / "images")
    for folder in folders:
        if is_folder(folder):
            return FolderTree(folder, ".txt").images
    lists = (Path(split), root / split, root / f"{split}.txt")
    list_file = find_first(path for path in lists if not is_folder(path))
    if list_file is not None:
        return _listed_images(list_file, root, finder, report)
    tree = FolderTree(root, ".txt")
    images = tree.images_of(split)
    if not images:
        known = list(tree.splits())
        hint = nearest(split, sorted(known)) if known else "; set data.root=FOLDER"
        raise UserError(f"data: no folder {folders[0]}, {folders[1]} nor list {split}.txt{hint}")
    return images


def _images_at(path: Path, root: Path, finder: FileFinder, report: DatasetReport) -> list[Path]:
    """The images in a folder or in a list."""
    if is_folder(path):
        return FolderTree(path, ".txt").images
    return _listed_images(path, root, finder, report)


def list_splits(data: DataConfig) -> list[str]:
    """The names of the splits, by the description, else by folders and lists."""
    root, description = open_root(Path(data.root))
    if description:
        description.refuse_misspelled((data.train, data.val, data.test))
        described = description.splits()
        if described:
            return described
    lists = [Path(name).stem for name in list_folder(root) if name.endswith(".txt")]
    return [*FolderTree(root, ".txt").splits(), *(name for name in lists if name in SPLIT_NAMES)]


def _listed_images(
    list_file: Path, root: Path, finder: FileFinder, report: DatasetReport
) -> list[Path]:
    """The images in a list, whose paths are relative to it, to `root` or to the current folder.

    Paths of another machine are found by their ends, and counted.
    """
    images = []
    for line in read_image_list(list_file, report):
        folders = (list_file.parent, root, Path())  # an absolute path replaces the folder
        image = next(filter(None, (finder.find(folder, line) for folder in folders)), None)
        if image is None:
            image = finder.find_by_end([root], line)
        if image is None:
            report.note("image missing", line)
        else:
            images.append(image)
    return images


def lists_classes(data: DataConfig) -> bool:
    """Whether a dataset names its classes."""
    root, description = open_root(Path(data.root))
    if description is not None:
        return "names" in description.entries
    return find_first(root / name for name in CLASS_FILES) is not None


def _read_class_names(
    root: Path, description: Description | None, report: DatasetReport
) -> tuple[str, ...]:
    if description is not None:
        report.note_encoding(description.path, description.encoding)
        listed = description.entries.get("names")
        if description.path.suffix != ".data" or not isinstance(listed, str):
            return _class_names_from_yaml(description.entries, description.path)
        path = description.locate(listed)  # obj.data names a file
    else:
        path = find_first(root / name for name in CLASS_FILES)
    if path is None:
        raise UserError(
            f"data.classes: expected a list of class names, or {root / 'data.yaml'} or classes.txt "
            "with it"
        )
    return checked_names(read_lines(path, report.note_encoding), str(path))


def _class_names_from_yaml(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """`names`, a list, or a mapping from index to name; `nc`, if given, must be their number."""
    listed = content.get("names")
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
    image: Path,
    labels: Path | None,
    class_names: tuple[str, ...],
    keypoints: int,
    report: DatasetReport,
) -> RawAnnotation:
    """Raises a BadValue with `file:line` for a line that cannot be read."""
    annotation = RawAnnotation(image, str(labels or image), relative=True)
    if labels is None:
        report.note("annotation missing", image)
        return annotation
    text, encoding = read_text(labels)
    report.note_encoding(labels, encoding)
    for number, line in enumerate(split_lines(text), 1):
        if line:
            source = f"{labels}:{number}"
            word, *coordinates = line.split()
            label = _parse_label(word, class_names, source)
            annotation.add(_parse_box(coordinates, source, keypoints), label)
            rule = "keypoints" if keypoints else "polygon"
            report.note(rule, source, int(len(coordinates) > 4))
    return annotation


def _parse_box(
    words: list[str], source: str, keypoints: int = 0
) -> tuple[float, float, float, float]:
    if keypoints:
        if len(words) != 4 + keypoints:
            raise BadValue(
                f"{source}: expected 4 + {keypoints} numbers after the class (kpt_shape), got "
                f"{len(words)}"
            )
        words = words[:4]
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
