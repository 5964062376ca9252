"""Pascal VOC: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages/`.

Corners are pixel numbers from 1 and inclusive, as the VOC devkit defines them, so xmin..xmax covers
`[xmin - 1, xmax)` in our continuous coordinates. Labelling tools that count from 0 end up at most one pixel larger
on the left and top, clipped to the picture. Fractions are accepted.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from utils.core.class_names import checked_names, read_class_names, read_lines
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import Labeled, Report, build_samples, parallel
from utils.data.files import FileFinder, label_of
from utils.data.sample import Sample

YEARS = {
    "2007": ("trainval", "train", "val", "test"),
    "2012": ("trainval", "train", "val"),
}  # what torchvision fetches


def read(
    data: DataConfig, split: str, progress: bool = True
) -> tuple[list[Sample], tuple[str, ...], Report]:
    """Read the split `split`, one list or several joined by `+`: `trainval`, `2007/trainval+2012/trainval`.

    An image without XML is left out: nothing says that it is empty. An image whose XML cannot be read is left out.

    Returns:
        records, class list (`data.classes`, else the sorted names of the training split), report.

    Raises:
        UserError: folder or list missing, or a class that is not in the class list.
    """
    report = Report()
    entries = list(_entries(data, split, report))
    trees = parallel(_parse, [xml for _, xml in entries], 2, "reading annotations", progress)
    names = read_class_names(data.classes) or _names_of_train(data)
    items = []
    for (picture, xml), tree in zip(entries, trees, strict=True):
        try:
            items.append(_labeled(picture, xml, tree, names))
        except ValueError:
            report.note("annotation unreadable", xml)
    return build_samples(items, report, progress=progress), names, report


def _entries(data: DataConfig, split: str, report: Report) -> Iterator[tuple[Path, Path]]:
    """(image, XML) of every listed image that has both."""
    pictures, annotations = FileFinder(), FileFinder(frozenset({".xml"}))
    for part in split.split("+"):
        root, listing = _list_file(data, part.strip())
        for line in read_lines(listing):
            plain = re.sub(r"\s+(-1|0|1)$", "", line)  # lists of one class add a column
            names = (line, plain)
            picture = next(
                filter(None, (pictures.find(root / "JPEGImages", name) for name in names)), None
            )
            if picture is None:
                report.note("image missing", root / "JPEGImages" / plain)
                continue
            xml = annotations.find(root / "Annotations", picture.stem)
            if xml is None:
                report.note("annotation missing", root / "Annotations" / f"{picture.stem}.xml")
                continue
            yield picture, xml


def _list_file(data: DataConfig, part: str) -> tuple[Path, Path]:
    """`2007/trainval` -> (root/VOC2007, its list); a missing dataset is fetched where `data.download` says so."""
    year, _, name = part.rpartition("/")
    found = _search(Path(data.root), year, name)
    if found is None and data.download:
        _download(data, year, name)
        found = _search(Path(data.root), year, name)
    if found is not None:
        return found
    root = next(
        (
            folder
            for folder in _folders(Path(data.root), year)
            if (folder / "ImageSets/Main").is_dir()
        ),
        None,
    )
    if root is None:
        where = Path(data.root) / (_folder_name(year) if year else "")
        raise UserError(
            f"data.root: no Pascal VOC data in {where} (expected Annotations, ImageSets/Main and JPEGImages there): "
            "set data.root=FOLDER, or data.download=true to fetch VOC2007/2012"
        )
    known = sorted(file.stem for file in (root / "ImageSets/Main").glob("*.txt"))
    raise UserError(
        f"data: no list {root / 'ImageSets/Main' / name}.txt for split '{part}'{nearest(name, known)}"
    )


def _folder_name(year: str) -> str:
    return f"VOC{year}" if year.isdigit() else year


def _folders(root: Path, year: str) -> list[Path]:
    names = [_folder_name(year)] if year else [""]
    return [base / name for name in names for base in (root, root / "VOCdevkit")]


def _search(root: Path, year: str, name: str) -> tuple[Path, Path] | None:
    lists = [(folder, folder / "ImageSets/Main" / f"{name}.txt") for folder in _folders(root, year)]
    return next((pair for pair in lists if pair[1].is_file()), None)


def _download(data: DataConfig, year: str, name: str) -> None:
    """Fetch one year through torchvision into `root/VOCdevkit/VOC<year>`."""
    year = year.removeprefix("VOC")
    if year not in YEARS or name not in YEARS[year]:
        known = [f"{year}/{name}" for year, names in YEARS.items() for name in names]
        raise UserError(
            f"data.download: cannot fetch split '{year}/{name}'{nearest(f'{year}/{name}', known)}"
        )
    from torchvision.datasets import VOCDetection

    try:
        VOCDetection(data.root or ".", year=year, image_set=name, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.download: fetching VOC{year} to {data.root or '.'} failed: {error}"
        ) from None


def _parse(xml: Path) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml.read_bytes())
    except (
        ElementTree.ParseError,
        ValueError,
        LookupError,
        OSError,
    ):  # LookupError: an encoding nobody knows
        return None


def _names_of_train(data: DataConfig) -> tuple[str, ...]:
    entries = list(_entries(data, data.train, Report()))
    trees = [tree for tree in map(_parse, (xml for _, xml in entries)) if tree is not None]
    names = {(node.text or "").strip() for tree in trees for node in tree.iterfind("object/name")}
    where = f"data: annotations of split '{data.train}' in {data.root or '.'}"
    return checked_names(sorted(names - {""}), where)


def _labeled(
    picture: Path, xml: Path, tree: ElementTree.Element | None, names: tuple[str, ...]
) -> Labeled:
    """Raises ValueError for XML that says no box or no name where it should."""
    if tree is None:
        raise ValueError
    size = tuple(int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    item = Labeled(picture, str(xml), size=(size[0], size[1]), one_based=True)
    for node in tree.iterfind("object"):
        corners = [
            float(node.findtext(f"bndbox/{key}") or "nan")
            for key in ("xmin", "ymin", "xmax", "ymax")
        ]
        name = (node.findtext("name") or "").strip()
        if not name or not all(map(math.isfinite, corners)):
            raise ValueError
        item.boxes.append((corners[0], corners[1], corners[2], corners[3]))
        item.labels.append(label_of(name, names, xml))
        item.difficult.append((node.findtext("difficult") or "0").strip() == "1")
        item.crowd.append(False)
    return item
