"""Pascal VOC: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages/`.

Without ImageSets, images and XML files may be in any folders (LabelImg, Roboflow, Label Studio):
they are matched by name, and a folder such as `train` or `test` makes a split.

Corners are pixel numbers from 1 and inclusive, as the VOC devkit defines them, so xmin..xmax covers
`[xmin - 1, xmax)` in our continuous coordinates. Boxes from labeling tools that count from 0 become
at most one pixel larger on the left and top and are clipped to the image. Fractions are accepted.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import re
from pathlib import Path

from utils.core.class_names import checked_names, read_class_names
from utils.core.errors import UserError, nearest
from utils.core.inputs import find_first, is_folder, list_folder
from utils.core.schema import DataConfig
from utils.data.checks import RawAnnotation, build_samples
from utils.data.dataset_report import DatasetReport
from utils.data.readers.base import SplitContents, class_index, read_image_list, require_folder
from utils.data.readers.file_finder import FileFinder
from utils.data.readers.folder_tree import FolderTree
from utils.data.readers.voc_xml import VocAnnotation, read_annotations

Annotated = list[tuple[Path, Path, VocAnnotation]]  # image, XML file, its content

DOWNLOADS = {  # year -> splits that torchvision fetches
    "2007": ("trainval", "train", "val", "test"),
    "2012": ("trainval", "train", "val"),
}


def read(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    progress: bool = True,
    report: DatasetReport | None = None,
) -> SplitContents:
    """Read a split, one list or several joined by `+`: `trainval`, `2007/trainval+2012/trainval`.

    An image without XML is skipped (it may contain objects), and so is one whose XML
    cannot be read. Class names are `data.classes`, else the sorted names in the training split. See
    `Reader` for arguments and errors.
    """
    report = report or DatasetReport()
    annotated = _read_split(data, split, report, progress)
    class_names = read_class_names(data.classes, report.note_encoding)
    if class_names is None:
        class_names = _train_class_names(data, split, annotated, report, progress)
    annotations = []
    for image, xml, content in annotated:
        annotation = RawAnnotation(image, str(xml), content.size, one_based=True)
        try:
            for name, box, difficult in content.objects:
                annotation.add(box, class_index(name, class_names, xml), difficult)
        except UserError as error:
            report.refuse(error)
            continue
        annotations.append(annotation)
    return SplitContents(build_samples(annotations, report, progress=progress), class_names, report)


def _read_split(data: DataConfig, split: str, report: DatasetReport, progress: bool) -> Annotated:
    """The annotations of a split, without those that cannot be used."""
    files = _find_files(data, split, report)
    annotated = []
    contents = read_annotations([xml for _, xml in files], progress)
    for (image, xml), content in zip(files, contents, strict=True):
        if content.problem:
            report.note("annotation unreadable", f"{xml}: {content.problem}")
        else:
            report.note_encoding(xml, content.encoding)
            annotated.append((image, xml, content))
    return annotated


def _find_files(data: DataConfig, split: str, report: DatasetReport) -> list[tuple[Path, Path]]:
    """(image, XML) of every listed image that has both."""
    if not list_names(Path(data.root)) and not data.download:
        files = _files_in_folders(Path(data.root), split, report)
        if files is not None:
            return files
    images, annotations = FileFinder(report=report), FileFinder(frozenset({".xml"}))
    files = []
    for list_name in split.split("+"):
        root, list_file = _find_list(data, list_name.strip())
        for folder in (root / "JPEGImages", root / "Annotations"):
            require_folder(folder)
        for line in read_image_list(list_file, report):
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


def _files_in_folders(
    root: Path, split: str, report: DatasetReport
) -> list[tuple[Path, Path]] | None:
    """As `_find_files`, for a dataset without lists; `None` if no image has an annotation."""
    tree = FolderTree(root, ".xml")
    if not tree.has_annotations():
        return None
    files = []
    images = tree.images_of(split)
    if not images:
        raise UserError(
            f"data: no folder '{split}' with images in {root}{nearest(split, tree.splits())}"
        )
    for image in images:
        try:
            xml = tree.annotation_of(image)
        except UserError as error:
            report.refuse(error)
            continue
        if xml is None:
            report.note("annotation missing", image)
        else:
            files.append((image, xml))
    return files


def list_splits(data: DataConfig) -> list[str]:
    """The names of the splits: lists in ImageSets/Main, else folders."""
    root = Path(data.root)
    return list_names(root) or list(FolderTree(root, ".xml").splits())


def list_names(root: Path) -> list[str]:
    """The lists in `ImageSets/Main`, with the year if there are several: `2007/trainval`."""
    names = _lists_in(root)
    years = _years(root)
    if len(years) == 1 and not names:
        return _lists_in(years[0])
    for folder in years:
        names += [f"{folder.name[3:]}/{name}" for name in _lists_in(folder)]
    return names


def _years(root: Path) -> list[Path]:
    """The folders `VOC2007` and the like, in `root` or its `VOCdevkit`."""
    folders = [
        parent / name for parent in (root, root / "VOCdevkit") for name in list_folder(parent)
    ]
    return [path for path in folders if path.name.startswith("VOC") and path.name[3:].isdigit()]


def _lists_in(folder: Path) -> list[str]:
    files = list_folder(folder / "ImageSets/Main")
    return [Path(name).stem for name in files if name.endswith(".txt")]


def _find_list(data: DataConfig, list_name: str) -> tuple[Path, Path]:
    """`2007/trainval` -> (root/VOC2007, its list), downloaded if `data.download` is set."""
    year, _, name = list_name.rpartition("/")
    year_folder = f"VOC{year}" if year.isdigit() else year
    root = Path(data.root)
    folders = [root / year_folder, root / "VOCdevkit" / year_folder]
    if not year and len(_years(root)) == 1:
        folders += _years(root)
    found = _search(folders, name)
    if found is None and data.download:
        _download(data, year, name)
        found = _search(folders, name)
    if found is not None:
        return found
    for folder in folders:
        lists = folder / "ImageSets/Main"
        if is_folder(lists):
            known = [Path(name).stem for name in list_folder(lists) if name.endswith(".txt")]
            raise UserError(
                f"data: no list {lists / name}.txt for split '{list_name}'{nearest(name, known)}"
            )
    raise UserError(
        f"data.root: no Pascal VOC data in {folders[0]} (expected Annotations, ImageSets/Main and "
        "JPEGImages there): set data.root=FOLDER, or data.download=true to fetch VOC2007/2012"
    )


def _search(folders: list[Path], name: str) -> tuple[Path, Path] | None:
    for folder in folders:
        list_file = find_first([folder / "ImageSets/Main" / f"{name}.txt"])
        if list_file is not None:
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


def _train_class_names(
    data: DataConfig, split: str, annotated: Annotated, report: DatasetReport, progress: bool
) -> tuple[str, ...]:
    """The sorted names in the training split, which may be the split that has been read."""
    if split != data.train:
        report = DatasetReport()
        annotated = _read_split(data, data.train, report, progress)
    names = {item.name for _, _, content in annotated for item in content.objects}
    source = f"data: annotations of split '{data.train}' in {data.root or '.'}"
    if not names:
        reasons = report.reasons() or "they have no objects"
        raise UserError(f"{source} name no class: {reasons}; set data.classes if that is right")
    return checked_names(sorted(names), source)
