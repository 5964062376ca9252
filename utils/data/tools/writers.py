"""Writing datasets: YOLO, Pascal VOC and COCO, in the layouts that the formats' own tools read.

Written by hand rather than through `supervision.DetectionDataset`, which keeps no `difficult`, and
drops folders, so that images of the same name overwrite each other.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category
from xml.etree import ElementTree

import numpy as np

from utils.core.class_names import UNUSABLE
from utils.core.errors import UserError, shorten
from utils.core.images import IMAGE_SUFFIXES, write_image
from utils.core.inputs import is_file, list_folder, read_file
from utils.core.outputs import check_folder, new_file, write_file
from utils.core.progress import progress_bar
from utils.core.yaml_text import dump_yaml
from utils.data.readers.yolo import LabelFinder
from utils.data.sample import Sample
from utils.data.tools.selection import Selection


@dataclass
class WrittenDataset:
    """What was written.

    Attributes:
        out: its folder.
        counts: split -> number of images.
        losses: what the format cannot hold, or not in the same way -> number of cases.
    """

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Lines for the terminal."""
        parts = [f"{name} {count}" for name, count in self.counts.items()]
        lost = [f"  {count} x {what}" for what, count in self.losses.items() if count]
        if "val" not in self.counts:
            lost.append("  there is no split 'val': `split --of train` makes one")
        return [*lost, f"written: {self.out} ({', '.join(parts)} images)"]


def check_new_folder(out: Path, roots: Sequence[str]) -> None:
    """Refuse a folder for a new dataset that has files, or that lies in the dataset it is made of.

    Raises:
        UserError: it cannot be used.
    """
    check_folder(out, f"--out {out}")
    if is_file(out) or list_folder(out):
        raise UserError(f"--out {out}: expected a new or empty folder, found files")
    for root in roots:
        folder = Path(root).parent if is_file(root) else Path(root)
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"--out {out}: lies in the dataset {folder}, where it would be read as a part of it"
            )


def write_dataset(
    selection: Selection, out: Path, file_format: str, link: bool = False, progress: bool = True
) -> WrittenDataset:
    """Write images and labels.

    Args:
        selection: what to write.
        out: the folder.
        file_format: `yolo`, `voc` or `coco`.
        link: make links to the images instead of copies.
        progress: show a progress bar.

    Raises:
        UserError: a class name that the format cannot hold.
        ReadError: an image cannot be read.
        WriteError: a file cannot be written.
    """
    image_folder, write_labels = FORMATS[file_format]
    written = WrittenDataset(out)
    names = _file_names(selection, "{split}" in image_folder, written.losses)
    total = sum(map(len, names.values()))
    with progress_bar(desc="writing images", total=total, show=progress) as bar:
        for split, samples in selection.splits.items():
            folder = out / image_folder.format(split=split)
            for sample, name in zip(samples, names[split], strict=True):
                _write_image(sample, folder / name, link)
                bar.update()
            written.counts[split] = len(samples)
    write_labels(selection, names, written)
    return written


def _write_image(sample: Sample, path: Path, link: bool) -> None:
    if sample.draw is not None:
        write_image(path, sample.draw())
    elif link:
        with new_file(path) as part:
            part.symlink_to(sample.path.absolute())
    else:
        write_file(path, read_file(sample.path, "cannot read image"))


def _file_names(
    selection: Selection, has_folders: bool, losses: Counter[str]
) -> dict[str, list[str]]:
    """Split -> names of its images; no two in a folder differ only in suffix or letter case.

    Args:
        selection: the images.
        has_folders: every split has a folder of its own.
        losses: counts images whose name changes.
    """
    taken: set[str] = set()
    names: dict[str, list[str]] = {}
    for split, samples in selection.splits.items():
        names[split] = []
        if has_folders:
            taken.clear()
        for sample in samples:
            stem = next(stem for stem in _stems(sample.path) if stem.lower() not in taken)
            taken.add(stem.lower())
            names[split].append(f"{stem}{sample.path.suffix}")
            losses["image renamed: its name is taken or unusual"] += stem != sample.path.stem
    return names


def _stems(path: Path) -> Iterator[str]:
    """Possible names, the own first."""
    yield _usable(path.stem)
    stem = _usable(f"{path.parent.name}_{path.stem}")
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def _usable(stem: str) -> str:
    """A name that lists of names can hold, and that no reader takes for another."""
    letters = ("_" if category(letter) in UNUSABLE else letter for letter in stem)
    stem = re.sub(r"^\.", "_", "".join(letters).strip()) or "_"
    ending = Path(stem).suffix
    return f"{stem.removesuffix(ending)}_{ending[1:]}" if ending.lower() in IMAGE_SUFFIXES else stem


Names = dict[str, list[str]]


def _write_yolo(selection: Selection, names: Names, written: WrittenDataset) -> None:
    """`images/<split>`, `labels/<split>`, `data.yaml`."""
    for split, samples in selection.splits.items():
        for sample, name in zip(samples, names[split], strict=True):
            size = np.array([sample.width, sample.height] * 2)
            low, high = np.split(sample.boxes[~sample.crowd].astype(np.float64), 2, axis=1)
            boxes = np.concatenate([(low + high) / 2, high - low], axis=1) / size
            lines = [
                f"{label} {' '.join(f'{value:.8f}' for value in box)}\n"
                for label, box in zip(sample.labels[~sample.crowd], boxes, strict=True)
            ]
            path = written.out / "labels" / split / f"{Path(name).stem}.txt"
            write_file(path, "".join(lines))
            written.losses["crowd region left out"] += int(sample.crowd.sum())
            written.losses["flag 'difficult' lost"] += int(sample.difficult.sum())
    write_description(written.out, {split: f"images/{split}" for split in names}, selection)


def write_description(out: Path, places: dict[str, str], selection: Selection) -> None:
    """Write a `data.yaml` with what each split is, and the class names."""
    content = {**places, "names": dict(enumerate(selection.class_names))}
    write_file(out / "data.yaml", dump_yaml(content))


def _write_voc(selection: Selection, names: Names, written: WrittenDataset) -> None:
    """`JPEGImages`, `Annotations`, `ImageSets/Main/<split>.txt`."""
    for name in selection.class_names:
        if name != name.strip():
            raise UserError(f"class '{shorten(name)}': Pascal VOC drops blanks at its ends: rename")
    used: set[int] = set()
    for split, samples in selection.splits.items():
        stems = [Path(name).stem for name in names[split]]
        for sample, name, stem in zip(samples, names[split], stems, strict=True):
            root = _voc_annotation(sample, name, selection.class_names, written.losses)
            text = ElementTree.tostring(root, encoding="unicode")
            write_file(written.out / "Annotations" / f"{stem}.xml", f"{text}\n")
            used.update(sample.labels[~sample.crowd].tolist())
        write_file(
            written.out / "ImageSets/Main" / f"{split}.txt", "".join(f"{s}\n" for s in stems)
        )
    written.losses["class without objects left out"] = len(selection.class_names) - len(used)


def _voc_annotation(
    sample: Sample, name: str, class_names: Sequence[str], losses: Counter[str]
) -> ElementTree.Element:
    """The XML of an image; corners are pixel numbers from 1, both inclusive."""
    root = ElementTree.Element("annotation")
    _add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", sample.width), ("height", sample.height), ("depth", 3)):
        _add(size, tag, value)
    for index in np.flatnonzero(~sample.crowd).tolist():
        node = ElementTree.SubElement(root, "object")
        _add(node, "name", class_names[sample.labels[index]])
        _add(node, "difficult", int(sample.difficult[index]))
        corners = sample.boxes[index].astype(np.float64) + (1, 1, 0, 0)
        losses["box widened to a pixel"] += bool((corners[2:] < corners[:2]).any())
        corners[2:] = np.maximum(corners[:2], corners[2:])
        bndbox = ElementTree.SubElement(node, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _add(bndbox, tag, f"{value:.4f}".rstrip("0").rstrip("."))
    losses["crowd region left out"] += int(sample.crowd.sum())
    return root


def _add(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)


def _write_coco(selection: Selection, names: Names, written: WrittenDataset) -> None:
    """`<split>`, `annotations/instances_<split>.json`; identifiers count from 1."""
    categories = [{"id": number, "name": n} for number, n in enumerate(selection.class_names, 1)]
    for split, samples in selection.splits.items():
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for number, (sample, name) in enumerate(zip(samples, names[split], strict=True), 1):
            size = {"width": sample.width, "height": sample.height}
            images.append({"id": number, "file_name": name, **size})
            for row in _coco_annotations(sample):
                annotations.append({"id": len(annotations) + 1, "image_id": number, **row})
            written.losses["flag 'difficult' lost"] += int(sample.difficult.sum())
        content = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        path = written.out / "annotations" / f"instances_{split}.json"
        write_file(path, json.dumps(content, ensure_ascii=False))


def _coco_annotations(sample: Sample) -> Iterator[dict[str, object]]:
    objects = zip(sample.boxes.astype(np.float64), sample.labels, sample.crowd, strict=True)
    for (x1, y1, x2, y2), label, crowd in objects:
        box = [round(float(value), 4) for value in (x1, y1, x2 - x1, y2 - y1)]
        yield {
            "category_id": int(label) + 1,
            "bbox": box,
            "area": round(box[2] * box[3], 4),
            "iscrowd": int(crowd),
        }


# format -> folder of a split's images, and what writes the labels
FORMATS: dict[str, tuple[str, Callable[[Selection, Names, WrittenDataset], None]]] = {
    "yolo": ("images/{split}", _write_yolo),
    "voc": ("JPEGImages", _write_voc),
    "coco": ("{split}", _write_coco),
}


def write_lists(selection: Selection, out: Path, is_yolo: bool) -> WrittenDataset:
    """Write lists of images where they are: `train.txt`, `val.txt`.

    Args:
        selection: the images.
        out: the folder.
        is_yolo: also write a `data.yaml`, so that the folder is a dataset in YOLO's format.

    Raises:
        UserError: an image has no file, a name that a list cannot hold, or labels that would not
            be found from there.
    """
    written = WrittenDataset(out)
    find_labels = LabelFinder(out)
    for split, samples in selection.splits.items():
        for sample in samples:
            if sample.draw is not None or "\n" in str(sample.path) or "\r" in str(sample.path):
                raise UserError(f"--lists: {shorten(str(sample.path))}: cannot stand in a list")
            if is_yolo and len(sample.boxes) and find_labels(sample.path) is None:
                raise UserError(
                    f"--lists: {sample.path}: expected its label file beside it or in labels: "
                    "leave --lists out to write a new dataset"
                )
        written.counts[split] = len(samples)
        lines = [f"{sample.path.absolute()}\n" for sample in samples]
        write_file(out / f"{split}.txt", "".join(lines))
    if is_yolo:
        write_description(out, {split: f"{split}.txt" for split in selection.splits}, selection)
    return written
