"""Pascal VOC: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages/`.

Corners are pixel numbers from 1 and inclusive, as the VOC devkit defines them, so xmin..xmax covers
`[xmin - 1, xmax)` in our continuous coordinates. Boxes from labeling tools that count from 0 become
at most one pixel larger on the left and top and are clipped to the image. Fractions are accepted.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import DatasetReport, RawAnnotation, build_samples, map_in_threads
from utils.data.readers.base import SplitContents, class_index
from utils.data.readers.file_finder import FileFinder

DOWNLOADS = {  # year -> splits that torchvision fetches
    "2007": ("trainval", "train", "val", "test"),
    "2012": ("trainval", "train", "val"),
}


def read(
    data: DataConfig, split: str, input_size: tuple[int, int], progress: bool = True
) -> SplitContents:
    """Read a split, one list or several joined by `+`: `trainval`, `2007/trainval+2012/trainval`.

    An image without XML is skipped (it may contain objects), and so is one whose XML
    cannot be read. Class names are `data.classes`, else the sorted names in the training split. See
    `Reader` for arguments and errors.
    """
    report = DatasetReport()
    files = _find_files(data, split, report)
    xml_paths = [xml for _, xml in files]
    trees = map_in_threads(_parse, xml_paths, 2, "reading annotations", progress)
    class_names = read_class_names(data.classes) or _train_class_names(data)
    annotations = []
    for (image, xml), tree in zip(files, trees, strict=True):
        try:
            annotations.append(_read_annotation(image, xml, tree, class_names))
        except ValueError:
            report.note("annotation unreadable", xml)
    return SplitContents(build_samples(annotations, report, progress=progress), class_names, report)


def _find_files(data: DataConfig, split: str, report: DatasetReport) -> list[tuple[Path, Path]]:
    """(image, XML) of every listed image that has both."""
    images, annotations = FileFinder(), FileFinder(frozenset({".xml"}))
    files = []
    for list_name in split.split("+"):
        root, list_file = _find_list(data, list_name.strip())
        for line in read_lines(list_file):
            name = re.sub(r"\s+(-1|0|1)$", "", line)  # lists of one class have a second column
            image = images.find(root / "JPEGImages", line) or images.find(root / "JPEGImages", name)
            if image is None:
                report.note("image missing", root / "JPEGImages" / name)
                continue
            xml = annotations.find(root / "Annotations", image.stem)
            if xml is None:
                report.note("annotation missing", root / "Annotations" / f"{image.stem}.xml")
                continue
            files.append((image, xml))
    return files


def _find_list(data: DataConfig, list_name: str) -> tuple[Path, Path]:
    """`2007/trainval` -> (root/VOC2007, its list), downloaded if `data.download` is set."""
    year, _, name = list_name.rpartition("/")
    year_folder = f"VOC{year}" if year.isdigit() else year
    root = Path(data.root)
    folders = [root / year_folder, root / "VOCdevkit" / year_folder]
    found = _search(folders, name)
    if found is None and data.download:
        _download(data, year, name)
        found = _search(folders, name)
    if found is not None:
        return found
    for folder in folders:
        lists = folder / "ImageSets/Main"
        if lists.is_dir():
            known = sorted(file.stem for file in lists.glob("*.txt"))
            raise UserError(
                f"data: no list {lists / name}.txt for split '{list_name}'{nearest(name, known)}"
            )
    raise UserError(
        f"data.root: no Pascal VOC data in {folders[0]} (expected Annotations, ImageSets/Main and "
        "JPEGImages there): set data.root=FOLDER, or data.download=true to fetch VOC2007/2012"
    )


def _search(folders: list[Path], name: str) -> tuple[Path, Path] | None:
    for folder in folders:
        list_file = folder / "ImageSets/Main" / f"{name}.txt"
        if list_file.is_file():
            return folder, list_file
    return None


def _download(data: DataConfig, year: str, name: str) -> None:
    """Fetch one year through torchvision into `root/VOCdevkit/VOC<year>`."""
    year = year.removeprefix("VOC")
    if name not in DOWNLOADS.get(year, ()):
        known = [f"{year}/{name}" for year, names in DOWNLOADS.items() for name in names]
        hint = nearest(f"{year}/{name}", known)
        raise UserError(f"data.download: cannot fetch split '{year}/{name}'{hint}")
    from torchvision.datasets import VOCDetection

    folder = data.root or "."
    try:
        VOCDetection(folder, year=year, image_set=name, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"data.download: fetching VOC{year} to {folder} failed: {error}") from None


def _parse(xml: Path) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError, OSError):  # LookupError: the encoding
        return None


def _train_class_names(data: DataConfig) -> tuple[str, ...]:
    names: set[str] = set()
    for _, xml in _find_files(data, data.train, DatasetReport()):
        tree = _parse(xml)
        if tree is not None:
            names.update((node.text or "").strip() for node in tree.iterfind("object/name"))
    source = f"data: annotations of split '{data.train}' in {data.root or '.'}"
    return checked_names(sorted(names - {""}), source)


def _read_annotation(
    image: Path, xml: Path, tree: ElementTree.Element | None, class_names: tuple[str, ...]
) -> RawAnnotation:
    """Raises a ValueError if the XML cannot be parsed, or an object lacks its name or a corner."""
    if tree is None:
        raise ValueError
    width, height = (int(float(tree.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    annotation = RawAnnotation(image, str(xml), (width, height), one_based=True)
    for node in tree.iterfind("object"):
        x1, y1, x2, y2 = (
            float(node.findtext(f"bndbox/{key}") or "nan")
            for key in ("xmin", "ymin", "xmax", "ymax")
        )
        name = (node.findtext("name") or "").strip()
        if not name or not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise ValueError
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        annotation.add((x1, y1, x2, y2), class_index(name, class_names, xml), difficult)
    return annotation
