"""The kinds of files that the program reads: tiny valid ones, made here, and how each is read."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from PIL import Image

from nets import load_model
from nets.inference.detections import Detections
from nets.io import checkpoints, darknet
from nets.io.darknet_cfg import read_cfg
from nets.io.onnx import INPUT, OUTPUTS, read_onnx
from nets.io.weights import read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from tests.dataset_files import ITEMS, NAMES, make_image, write_coco, write_voc, write_yolo
from tests.nets.darknet_files import cfg_text
from utils.compare.planning import plan as plans
from utils.compare.planning.controls import ControlRecord
from utils.compare.trials.latency import LatencyRecord
from utils.compare.trials.results import (
    CURVE,
    DETECTIONS,
    DONE,
    read_detections,
    read_result,
    write_detections,
)
from utils.core.class_names import read_class_names
from utils.core.config import CONFIG_DIR, dump_config, load_config
from utils.core.images import read_image
from utils.core.schema import Config, DataConfig
from utils.core.validation import read_json
from utils.core.yaml_text import dump_yaml, parse_yaml
from utils.data.checks import read_header
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.engine.experiment import resume, train
from utils.engine.runs import BEST, LAST
from utils.engine.saved_state import check_training

SMALL = 3000  # values of a tensor that small checkpoints hold
TINY = {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "input_size": 64,
    "data.shapes_train": 4,
    "data.shapes_val": 2,
    "train.epochs": 1,
    "train.batch_size": 2,
    "train.optimizer": "sgd",
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: where the file is written.
        load: reads it; asserts that what it returns can be used.
        files: contents of valid files.
        is_text: whether words and lines can be changed.
        values: nested values that `write` makes into the content of a file.
        write: see `values`.
        share: number of loads relative to other kinds; less for files that take long to read.
    """

    path: Path
    load: Callable[[Path], object]
    files: tuple[bytes, ...]
    is_text: bool = False
    values: tuple[Any, ...] = ()
    write: Callable[[Any], bytes] = lambda value: b""
    share: float = 1.0


def _json(value: Any) -> bytes:
    return json.dumps(value, skipkeys=True).encode()


def _yaml(value: Any) -> bytes:
    return dump_yaml(value).encode("utf-8", "surrogatepass")


# configurations


def _config(folder: Path) -> Kind:
    files = [path.read_bytes() for path in sorted(CONFIG_DIR.glob("*.yaml"))]
    files.append(dump_config(Config()).encode())
    values = [parse_yaml(file.decode(), "seed") for file in files]
    return Kind(folder / "a.yaml", load_config, tuple(files), True, tuple(values), _yaml, 0.4)


def _settings(folder: Path) -> Kind:
    """The file of `compare.py --settings`."""
    settings = {
        "none": {"phi": "none"},
        "two": {"phi": {"feat1": "se", "feat2": {"name": "cbam", "reduction": 8}}},
        "adamw": {"train": {"optimizer": "adamw"}, "train.lr": 1e-3, "seed": 100},
    }

    def load(path: Path) -> None:
        settings = plans._make_settings(Config(), plans._read_settings(str(path)))
        assert all(setting.folder for setting in settings)

    return Kind(folder / "a.yaml", load, (_yaml(settings),), True, (settings,), _yaml, 0.4)


# datasets

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
    return Kind(path, load, (path.read_bytes(), pretty), True, (value,), _json)


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
    files = tuple(_yaml(value) for value in values)
    return Kind(path, lambda path: _load_split("yolo", folder), files, True, values, _yaml)


def _yolo_list(folder: Path) -> Kind:
    write_yolo(folder, TWO)
    (folder / "images/train").rename(folder / "images/all")
    (folder / "labels/train").rename(folder / "labels/all")
    files = (b"images/all/a.jpg\nimages/all/b.jpg\n", b"./images\\all\\a.jpg\n'images/all/b.jpg'\n")
    return Kind(folder / "train.txt", lambda path: _load_split("yolo", folder), files, True)


def _class_list(folder: Path) -> Kind:
    files = (b"cat\ndog\n", "\ufeff猫\r\n狗\r\n".encode(), "安全帽\n人\n".encode("gbk"))
    return Kind(folder / "a.txt", lambda path: read_class_names(str(path)), files, True)


# images


def _load_image(path: Path) -> None:
    header = read_header(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    assert header.size is not None


def _encoded(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    content = io.BytesIO()
    make_image((24, 16)).convert(mode).save(content, file_format, **options)
    return content.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


IMAGES: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "jpeg": lambda: (
        _encoded("JPEG"),
        _encoded("JPEG", progressive=True, exif=_exif()),
        _encoded("JPEG", "CMYK"),
    ),
    "png": lambda: (
        _encoded("PNG"),
        _encoded("PNG", "P", exif=_exif()),
        _encoded("PNG", "RGBA"),
        _encoded("PNG", "LA"),
    ),
    "bmp": lambda: (_encoded("BMP"), _encoded("BMP", "P"), _encoded("BMP", "1")),
    "webp": lambda: (_encoded("WEBP"), _encoded("WEBP", lossless=True, exif=_exif())),
    "gif": lambda: (
        _encoded("GIF", "P"),
        _encoded("GIF", "P", save_all=True, append_images=[make_image((24, 16), 1)]),
    ),
    "tiff": lambda: (
        _encoded("TIFF"),
        _encoded("TIFF", compression="tiff_lzw", exif=_exif()),
        _encoded("TIFF", compression="tiff_adobe_deflate"),
    ),
    "ppm": lambda: (_encoded("PPM"), _encoded("PPM", "L")),
}


def _image(suffix: str) -> Callable[[Path], Kind]:
    def make(folder: Path) -> Kind:
        return Kind(folder / f"a.{suffix}", _load_image, IMAGES[suffix]())

    return make


# weights


def _torch_bytes(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _trained(folder: Path) -> Path:
    """The folder of a finished tiny training."""
    config = load_config("shapes.yaml", {**TINY, "output": str(folder), "name": "trained"})
    return train(config).run


def _small(tensors: dict[str, Any]) -> dict[str, Any]:
    """The head of a network and its small tensors: a whole one takes long to write."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.numel() < SMALL or name.startswith("predict16")
    }


def _checkpoint(folder: Path) -> Kind:
    """What is checked of a `last.pt` before its network is built."""
    value = checkpoints.load(_trained(folder) / LAST)
    value["model"] = _small(value["model"])
    training = value["training"]
    training["network"] = _small(training["network"])
    state = training["optimizer"]["state"]
    training["optimizer"]["state"] = {key: state[key] for key in list(state)[:3]}

    def load(path: Path) -> None:
        content = checkpoints.load(path)
        if "training" in content:
            check_training(content, path)

    files = (_torch_bytes(value),)
    return Kind(folder / LAST, load, files, False, (value,), _torch_bytes, share=0.1)


def _best(folder: Path) -> Kind:
    value = checkpoints.load(_trained(folder) / BEST)

    def load(path: Path) -> None:
        image = np.full((40, 60, 3), 90, np.uint8)
        limits = {"precision": "fp32", "device": "cpu", "backend": "torch"}
        assert np.isfinite(load_model(path, limits)(image).boxes).all()

    files = (_torch_bytes(value),)
    return Kind(folder / BEST, load, files, False, (value,), _torch_bytes, share=0.005)


def _last(folder: Path) -> Kind:
    """`train.py --resume`, up to the first step."""
    path = _trained(folder) / LAST
    value = checkpoints.load(path)
    (path.parent / "metrics.json").unlink()
    config = value.pop("config")  # its mistakes are those of other kinds

    def load(path: Path) -> None:
        with patch("utils.engine.experiment._finish"):
            resume(path.parent)

    def write(value: Any) -> bytes:
        return _torch_bytes({**value, "config": config} if isinstance(value, dict) else value)

    return Kind(path, load, (write(value),), False, (value,), write, share=0.005)


def _load_foreign(path: Path) -> None:
    weights = read_weights(path)
    assert weights.num_classes is None or (weights.num_classes > 0 and weights.model_config)


def _pth(folder: Path) -> Kind:
    tensors = _small(YOLOv4Tiny(2).state_dict())
    values = (tensors, {"state_dict": tensors, "epoch": 3})
    files = tuple(map(_torch_bytes, values))
    return Kind(folder / "a.pth", _load_foreign, files, False, values, _torch_bytes, 0.1)


def _darknet_bytes(folder: Path) -> bytes:
    path = folder / "seed.weights"
    darknet.write_darknet(YOLOv4Tiny(2), path)
    return path.read_bytes()


def _darknet_start(folder: Path) -> Kind:
    """A file truncated after the first layer."""
    content = _darknet_bytes(folder)[: 20 + 4 * (4 * 32 + 32 * 3 * 9)]
    return Kind(folder / "yolov4-tiny.conv.1", _load_foreign, (content,), share=0.1)


def _darknet_weights(folder: Path) -> Kind:
    path = folder / "a.weights"
    path.with_suffix(".cfg").write_text(cfg_text(2))
    path.with_suffix(".names").write_text("cat\ndog\n")
    return Kind(path, load_model, (_darknet_bytes(folder),), share=0.005)


def _cfg(folder: Path) -> Kind:
    texts = (cfg_text(2), cfg_text(2, new_coords=True), cfg_text(2, heads=3))
    return Kind(folder / "a.cfg", read_cfg, tuple(text.encode() for text in texts), True)


def _names(folder: Path) -> Kind:
    def load(path: Path) -> None:
        assert len(darknet.read_names([path.with_suffix(".weights")], 2)) == 2

    return Kind(folder / "a.names", load, (b"cat\ndog\n", "猫\n狗\n".encode("gbk")), True)


def _onnx_model() -> onnx.ModelProto:
    """A graph with the inputs and outputs of an exported network of two classes."""
    shapes = {
        INPUT: ["batch", 3, 32, 32],
        OUTPUTS[0]: ["batch", 15, 4],
        OUTPUTS[1]: ["batch", 15, 2],
    }
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    nodes = []
    for info in infos[1:]:
        sides = [dimension.dim_value for dimension in info.type.tensor_type.shape.dim[1:]]
        value = helper.make_tensor(
            "value", TensorProto.FLOAT, [1, *sides], [0.0] * sides[0] * sides[1]
        )
        nodes.append(helper.make_node("Constant", [], [info.name], value=value))
    graph = helper.make_graph(nodes, "network", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _onnx(folder: Path) -> Kind:
    """The metadata of an exported network, and its graph as bytes."""
    value = {
        "config": Config(input_size=32).model_dump(mode="json"),
        "names": ["cat", "dog"],
        "anchors": [[10.0 * side, 12.0 * side] for side in range(1, 7)],
    }

    def write(value: Any) -> bytes:
        model = _onnx_model()
        texts = {}
        for key, item in value.items() if isinstance(value, dict) else ():
            content = _yaml(item) if key == "config" else _json(item)
            texts[str(key)] = content.decode("utf-8", "replace")
        helper.set_model_props(model, texts)
        return model.SerializeToString()

    return Kind(folder / "a.onnx", read_onnx, (write(value),), False, (value,), write, share=0.1)


# results of a comparison

SCORES = {"ap50_95": 0.5, "ap50": None}
METRICS = {"map50_95": 0.5, "map50": 0.75, "best_score": 0.3, "params": 5, "gflops": 1.5}
RECORD = {
    "truth": 12345,
    "train_seconds": 1.5,
    "metrics": {**METRICS, "per_class": {"cat": SCORES, "dog": SCORES}},
}
ROWS = b"epoch,loss,map50_95,seconds\n1,2.5,,0.4\n2,1.25,0.5,0.8\n"


def _trial(folder: Path) -> plans.Trial:
    (folder / DONE).write_bytes(_json(RECORD))
    (folder / CURVE).write_bytes(ROWS)
    return plans.Trial("se", 0, folder, Config())


def _trial_json(folder: Path) -> Kind:
    trial = _trial(folder)
    load = lambda path: read_result(trial)  # noqa: E731
    return Kind(folder / DONE, load, (_json(RECORD),), True, (RECORD,), _json)


def _curve(folder: Path) -> Kind:
    trial = _trial(folder)
    return Kind(folder / CURVE, lambda path: read_result(trial), (ROWS,), True)


def _detections(folder: Path) -> Kind:
    trial, path = _trial(folder), folder / DETECTIONS
    boxes = np.array([[1, 2, 10, 20], [0, 0, 5, 5]], np.float32)
    scores, labels = np.array([0.9, 0.5], np.float32), np.array([0, 1])
    detections = Detections(boxes, scores, labels, NAMES, 30, 30)
    samples = [Sample(Path(f"{index}.png"), 30, 30) for index in range(2)]
    write_detections(path, [detections] * 2)
    with np.load(path) as arrays:
        value = dict(arrays)

    def load(path: Path) -> None:
        for image in read_detections(trial, samples, NAMES):
            assert image.boxes.shape == (len(image.scores), 4)

    return Kind(path, load, (path.read_bytes(),), False, (value,), _npz)


def _npz(value: Any) -> bytes:
    arrays = {}
    for key, item in value.items() if isinstance(value, dict) else {"a": value}.items():
        is_array = isinstance(item, np.ndarray)
        arrays[str(key)[:50]] = item if is_array else np.array(repr(item)[:50])
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _records(folder: Path) -> Kind:
    """`latency.json` and `controls.json`."""
    latency = {"trials": {"se": "0 123"}, "ms": {"se": 1.5}}
    controls = {"se": {"of": "[]", "phi": {"feat1": {"name": "conv_control", "params": 10}}}}

    def load(path: Path) -> None:
        kind = LatencyRecord if b'"ms"' in path.read_bytes() else dict[str, ControlRecord]
        read_json(kind, path)

    values = (latency, controls)
    return Kind(folder / "a.json", load, tuple(map(_json, values)), True, values, _json)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "config": _config,
    "settings": _settings,
    "voc_xml": _voc_xml,
    "voc_list": _voc_list,
    "coco_json": _coco_json,
    "yolo_labels": _yolo_labels,
    "yolo_yaml": _yolo_yaml,
    "yolo_list": _yolo_list,
    "class_list": _class_list,
    **{suffix: _image(suffix) for suffix in IMAGES},
    "checkpoint": _checkpoint,
    "best": _best,
    "last": _last,
    "pth": _pth,
    "darknet_start": _darknet_start,
    "darknet": _darknet_weights,
    "cfg": _cfg,
    "names": _names,
    "onnx": _onnx,
    "trial_json": _trial_json,
    "curve": _curve,
    "detections": _detections,
    "records": _records,
}
