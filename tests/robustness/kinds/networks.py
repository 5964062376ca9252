"""Checkpoints, weights of other programs and what describes them."""

import io
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from nets import load_model
from nets.io import checkpoints, darknet
from nets.io.darknet_cfg import read_cfg
from nets.io.weights import read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from tests.nets.darknet_files import cfg_text
from tests.robustness.kinds.kind import Kind
from utils.core.config import load_config
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


KINDS = {
    "checkpoint": _checkpoint,
    "best": _best,
    "last": _last,
    "pth": _pth,
    "darknet_start": _darknet_start,
    "darknet": _darknet_weights,
    "cfg": _cfg,
    "names": _names,
}
