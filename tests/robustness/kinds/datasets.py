"""Annotations, lists and class names."""

import json
from pathlib import Path

import numpy as np

from tests.dataset_files import ITEMS, NAMES, write_coco, write_voc, write_yolo
from tests.robustness.kinds.kind import Kind, to_json, to_yaml
from utils.core.class_names import read_class_names
from utils.core.schema import DataConfig
from utils.data.loading import load_dataset

TWO = ITEMS[:2]


def _load_split(kind: str, root: Path) -> None:
    """Read a split, and check what the training relies on."""
    split = load_dataset(DataConfig(format=kind, root=str(root)), "train", (32, 32), progress=False)
    assert split.class_names and all(split.class_names)
    for sample in split.samples:
        assert sample.boxes.shape == (len(sample.labels), 4) and sample.boxes.dtype == np.float32
        assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all() and (sample.boxes >= 0).all()
        assert (sample.boxes <= [sample.width, sample.height] * 2).all()
        assert ((sample.labels >= 0) & (sample.labels < len(split.class_names))).all()


def _voc_xml(folder: Path) -> Kind:
    path = write_voc(folder, TWO) / "Annotations/a.xml"
    pretty = path.read_bytes().replace(b"><", b">\n<")
    declared = b'<?xml version="1.0" encoding="utf-8"?>\n' + pretty
    return Kind(path, lambda path: _load_split("voc", folder), (pretty, declared), True)


def _voc_list(folder: Path) -> Kind:
    path = write_voc(folder, TWO) / "ImageSets/Main/train.txt"
    files = (path.read_bytes(), b"a 1\nb -1\n", b"a.jpg\nb.jpg\n")
    return Kind(path, lambda path: _load_split("voc", folder), files, True)


def _coco_json(folder: Path) -> Kind:
    path = write_coco(folder, TWO) / "annotations/instances_train.json"
    value = json.loads(path.read_bytes())
    pretty = json.dumps(value, indent=1).encode()
    load = lambda path: _load_split("coco", folder)  # noqa: E731
    return Kind(path, load, (path.read_bytes(), pretty), True, (value,), to_json)


def _yolo_labels(folder: Path) -> Kind:
    path = write_yolo(folder, TWO) / "labels/train/a.txt"
    files = (path.read_bytes(), b"1 0.1 0.1 0.5 0.1 0.5 0.9 0.1 0.9\n0.0 0.5 0.5 1 1\n")
    return Kind(path, lambda path: _load_split("yolo", folder), files, True)


def _yolo_yaml(folder: Path) -> Kind:
    path = write_yolo(folder, TWO) / "data.yaml"
    values = (
        {"path": ".", "train": "images/train", "nc": 3, "names": list(NAMES)},
        {"names": dict(enumerate(NAMES))},
    )
    files = tuple(to_yaml(value) for value in values)
    return Kind(path, lambda path: _load_split("yolo", folder), files, True, values, to_yaml)


def _yolo_list(folder: Path) -> Kind:
    write_yolo(folder, TWO)
    (folder / "images/train").rename(folder / "images/all")
    (folder / "labels/train").rename(folder / "labels/all")
    files = (b"images/all/a.jpg\nimages/all/b.jpg\n", b"./images\\all\\a.jpg\n'images/all/b.jpg'\n")
    return Kind(folder / "train.txt", lambda path: _load_split("yolo", folder), files, True)


def _class_list(folder: Path) -> Kind:
    files = (b"cat\ndog\n", "\ufeff猫\r\n狗\r\n".encode(), "安全帽\n人\n".encode("gbk"))
    return Kind(folder / "a.txt", lambda path: read_class_names(str(path)), files, True)


KINDS = {
    "voc_xml": _voc_xml,
    "voc_list": _voc_list,
    "coco_json": _coco_json,
    "yolo_labels": _yolo_labels,
    "yolo_yaml": _yolo_yaml,
    "yolo_list": _yolo_list,
    "class_list": _class_list,
}
