"""From a file or a run's folder to a detector that is ready to use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.io.darknet_cfg import read_cfg
from nets.io.onnx_file import first_runtime, read_onnx
from nets.io.weights import DARKNET_EPS, darknet_layers, load_weights, read_weights
from nets.yolo.yolov4_tiny import DARKNET_ANCHORS, DARKNET_MASKS, YOLOv4Tiny, build_model
from utils.core.class_names import default_class_names
from utils.core.config import as_words, make_config, restore_config, update_config
from utils.core.errors import UserError

BEST = "best.pt"
# What the reference implementation's blocks look like in a state dictionary -> phi
REFERENCE_PHI = (
    ("attention.feat1.channelattention.fc1.weight", "cbam"),
    ("attention.feat1.fc.0.weight", "se"),
    ("attention.feat1.conv_1x1.weight", "ca"),
    ("attention.feat1.conv.weight", "eca"),
)


def load_model(
    path: str | Path, changes: Mapping[str, Any] | None = None, **values: Any
) -> Detector:
    """Load a detector.

    Args:
        path: a checkpoint of this project, a run's folder (its `best.pt`), an ONNX file that `export.py` wrote, a
            Darknet `.weights` file, or a `.pth` of the reference implementation.
        changes: keys of the file's configuration with other values, e.g. `{"eval.nms_iou": 0.5}`.
        values: the same for top-level keys, e.g. `device="cpu"`, `precision="fp32"`, `input_size=608`; None
            leaves the file's own.

    Returns:
        A `Detector`: call it with an image or a list of pictures.

    Raises:
        UserError: nothing there, or not readable as weights.
    """
    path = Path(path)
    changes = {
        **(changes or {}),
        **{key: value for key, value in values.items() if value is not None},
    }
    if path.is_dir():
        path = path / BEST
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    if path.suffix == ".pt" or (
        path.suffix == ".pth" and checkpoints.is_ours(checkpoints.read_torch_file(path))
    ):
        return _load_ours(path, changes)
    if path.suffix == ".onnx":
        return _load_onnx(path, changes)
    return _load_foreign(path, changes)


def _load_ours(path: Path, changes: Mapping[str, Any]) -> Detector:
    saved = checkpoints.load(path)
    config = update_config(restore_config(saved["config"], str(path)), changes)
    network = build_model(config, len(saved["names"]), saved["anchors"])
    try:
        network.load_state_dict(saved["model"])
    except RuntimeError:
        raise _another_network(path, changes) from None
    return Detector(network, config, saved["names"], weights=path)


def _another_network(path: Path, changes: Mapping[str, Any]) -> UserError:
    shown = as_words(changes) or "its own configuration"
    return UserError(f"{path}: its weights are of another network than {shown} asks for")


def _load_onnx(path: Path, changes: Mapping[str, Any]) -> Detector:
    """What is computed is fixed, the limits are not; where and with what it ran before says nothing about here."""
    saved = read_onnx(path)
    here = {"backend": first_runtime(path), "device": "auto", "precision": "auto"}
    config = update_config(saved.config, {**here, **changes})
    for key in ("input_size", "phi", "attention", "model"):
        if getattr(config, key) != getattr(saved.config, key):
            raise UserError(
                f"{path}: {key} is fixed in an ONNX file ({getattr(saved.config, key)}); export another"
            )
    with torch.device("meta"):
        network = build_model(config, len(saved.names), saved.anchors)
    return Detector(network, config, saved.names, onnx=path)


def _load_foreign(path: Path, changes: Mapping[str, Any]) -> Detector:
    """Weights without a configuration: everything is read off the tensors and the files beside them (Darknet's `.cfg`
    and `.names`), or is what their programs assume.
    """
    weights = read_weights(path)
    state = weights.tensors
    if "predict32.bias" not in state:
        raise UserError(
            f"{path}: holds no detection heads (backbone only); use it for training: weights={path}"
        )
    classes = len(state["predict32.bias"]) // 3 - 5
    darknet = path.suffix == ".weights"
    stretch = 1.05 if darknet else 1.0  # the reference does not stretch the center
    model = {
        "anchors": [list(anchor) for anchor in DARKNET_ANCHORS],
        "anchor_masks": DARKNET_MASKS,
        "new_coords": False,
        "scale_x_y": stretch,
    }
    phi = next((phi for name, phi in REFERENCE_PHI if name in state), "none")
    beside = _described(path.with_suffix(".cfg"), classes) if darknet else {}
    values = {"name": path.stem, "phi": phi, "model": model, **beside}
    config = update_config(make_config(values, str(path)), changes)
    network = build_model(config, classes)
    report = load_weights(network, weights)
    if report.fresh or report.misshapen:
        raise _another_network(path, changes)
    if darknet:
        _set_epsilon(network)
    return Detector(network, config, _names_beside(path, classes), weights=path)


def _described(cfg: Path, classes: int) -> dict[str, Any]:
    """`input_size` and `model` of a Darknet description beside the weights, if there is one."""
    if not cfg.is_file():
        return {}
    settings = read_cfg(cfg)
    if settings["classes"] != classes:
        raise UserError(
            f"{cfg}: describes {settings['classes']} classes, the weights beside it have {classes}"
        )
    return {key: settings[key] for key in ("input_size", "model")}


def _names_beside(path: Path, classes: int) -> list[str]:
    """The class list of a `.names` file beside Darknet weights, else `class_names`."""
    file = path.with_suffix(".names")
    names = file.read_text(encoding="utf-8").split("\n")[:classes] if file.is_file() else []
    return names if len(names) == classes and all(names) else default_class_names(classes)


def _set_epsilon(network: YOLOv4Tiny) -> None:
    for _, _, norm in darknet_layers(network):
        if norm is not None:
            norm.eps = DARKNET_EPS
