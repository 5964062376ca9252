"""Darknet's `.weights` files, and the `.cfg` and `.names` files next to them.

A `.weights` file holds the version (int32 major, minor, revision); the number of images seen in
training (uint64; int32 before version 0.2); then float32 values, layer by layer in the order of
`yolov4-tiny.cfg`, or of `yolov4-tiny-3l.cfg`, which has more layers at its end.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nets.io.darknet_cfg import DarknetCfg, read_cfg
from nets.io.tensors import HEADS, check_tensors
from nets.yolo.blocks import ConvBNAct
from nets.yolo.box_coder import DARKNET, BoxCoder
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.class_names import checked_names, default_class_names, read_lines
from utils.core.errors import UserError
from utils.core.inputs import read_file
from utils.core.outputs import write_file
from utils.core.schema import ModelConfig

# The epsilon of OpenCV's Darknet importer is 1e-6. Ignoring the difference from PyTorch's 1e-5
# changes the raw maps by 5e-4 and moves the edges of large boxes by pixels.
EPSILON_GAP = nn.BatchNorm2d(1).eps - 1e-6
LAYERS = (
    "backbone.stem1",
    "backbone.stem2",
    *(f"backbone.csp{stage}.conv{index}" for stage in (1, 2, 3) for index in (1, 2, 3, 4)),
    "backbone.last",
    "neck.lateral",
    "head32",
    "predict32",
    "neck.reduce",
    "head16",
    "predict16",
    "reduce8",
    "head8",
    "predict8",
)
MAX_BYTES = 2**30  # enough for 100,000 classes
# Number of heads -> what Darknet's own cfg says
MODEL_CONFIGS = {
    heads: ModelConfig(
        heads=heads,
        anchors=list(boxes.anchors),
        anchor_masks=boxes.masks,
        new_coords=False,
        scale_x_y=1.05,
    )
    for heads, boxes in DARKNET.items()
}


def darknet_tensors(network: YOLOv4Tiny) -> dict[str, Tensor]:
    """Return the tensors of a network by name, in the order of a Darknet file."""
    names = []
    modules = dict(network.named_modules())
    for layer in LAYERS:
        if layer not in modules:  # of the third head
            continue
        if isinstance(modules[layer], ConvBNAct):
            statistics = ("bias", "weight", "running_mean", "running_var")
            names += [f"{layer}.bn.{key}" for key in statistics]
            names.append(f"{layer}.conv.weight")
        else:
            names += [f"{layer}.bias", f"{layer}.weight"]
    state = network.state_dict()
    return {name: state[name] for name in names}


def read_darknet(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a Darknet file.

    The numbers of classes and heads are derived from the file's length. A file truncated after a
    layer, such as `yolov4-tiny.conv.29`, is read up to there. Variances are adapted to PyTorch's
    epsilon.

    Raises:
        UserError: the file's length does not match a YOLOv4-tiny, or its values cannot: NaN,
            infinity, or negative variances, as where a layer's values begin elsewhere.
    """
    values = _read_values(path)
    layout = _find_layout(values.size)
    tensors: dict[str, Tensor] = {}
    start = 0
    is_whole_layer = False
    for name, like in layout.items():
        end = start + like.numel()
        if end > values.size:
            break
        tensor = torch.from_numpy(values[start:end].copy()).view(like.shape)
        tensors[name] = tensor - EPSILON_GAP if name.endswith("running_var") else tensor
        start = end
        is_whole_layer = name.removesuffix(".weight").removesuffix(".conv") in LAYERS
    if start < values.size or not is_whole_layer:
        raise UserError(
            f"{path}: its {values.size} values do not match a YOLOv4-tiny: "
            "truncated, or another network?"
        )
    check_tensors(tensors, f"{path}: not the weights of a YOLOv4-tiny, or damaged")
    return tensors


def write_darknet(network: YOLOv4Tiny, path: str | Path, seen: int = 0) -> None:
    """Write a plain YOLOv4-tiny as a Darknet `.weights` file.

    Args:
        network: a network without attention, on any device.
        path: the file to write.
        seen: number of images seen in training, stored in the file.

    Raises:
        UserError: the network has attention blocks, which Darknet does not support, or the file
            cannot be written.
    """
    if len(network.attention):
        raise UserError(
            "export to darknet: Darknet has no attention layers; only phi=none can be written"
        )
    parts = [np.array([0, 2, 5], "<i4").tobytes(), np.array([seen], "<u8").tobytes()]
    for name, tensor in darknet_tensors(network).items():
        values = tensor.cpu().float()
        if name.endswith("running_var"):
            values = values + EPSILON_GAP
        parts.append(values.numpy().astype("<f4").tobytes())
    write_file(path, b"".join(parts))


def read_description(path: Path, num_classes: int, heads: int) -> DarknetCfg:
    """Read the `.cfg` of a weights file.

    Raises:
        UserError: it does not describe a YOLOv4-tiny with this many classes and heads.
    """
    description = read_cfg(path)
    for what, described, found in (
        ("classes", description.num_classes, num_classes),
        ("heads", description.model.heads, heads),
    ):
        if described != found:
            raise UserError(f"{path}: describes {described} {what}, its weights have {found}")
    return description


def read_names(beside: Sequence[Path], num_classes: int) -> list[str]:
    """Return the class names in the first `.names` file next to one of `beside`, else default ones.

    Raises:
        UserError: the file does not name each of the classes once.
    """
    files = [path.with_suffix(".names") for path in beside]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return default_class_names(num_classes)
    names = checked_names(read_lines(path), str(path))
    if len(names) != num_classes:
        raise UserError(
            f"{path}: {len(names)} class names, but the weights have {num_classes} "
            "classes: correct the file, or remove it for default names"
        )
    return list(names)


def _find_layout(values: int) -> dict[str, Tensor]:
    """Return the tensors of a file of `values` float32 values, without memory.

    Lengths are unique: modulo 3, the number of values differs between two heads and three. A
    truncated file is taken for one with one class and two heads.
    """
    for heads in DARKNET:
        first = _layout(heads, 1)
        one_class = sum(tensor.numel() for tensor in first.values())
        # each of the 3 * (5 + C) outputs of a head has a bias and a weight per channel
        per_class = 3 * sum(1 + channels for channels in list(HEADS.values())[:heads])
        more, rest = divmod(values - one_class, per_class)
        if more >= 0 and rest == 0:
            return _layout(heads, more + 1)
    return _layout(2, 1)


def _layout(heads: int, num_classes: int) -> dict[str, Tensor]:
    boxes = DARKNET[heads]
    with torch.device("meta"):
        return darknet_tensors(YOLOv4Tiny(num_classes, BoxCoder(boxes.anchors, boxes.masks)))


def _read_values(path: Path) -> np.ndarray:
    data = read_file(path, max_bytes=MAX_BYTES)
    if len(data) < 20:
        raise UserError(f"{path}: too short for a Darknet file")
    major, minor, _ = np.frombuffer(data, "<i4", 3).tolist()
    header = 20 if major * 10 + minor >= 2 else 16
    if not (0 <= major < 1000 and 0 <= minor < 1000) or (len(data) - header) % 4:
        raise UserError(f"{path}: not a Darknet weights file")
    return np.frombuffer(data, "<f4", offset=header)
