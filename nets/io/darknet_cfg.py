"""Darknet's `.cfg`, the description of a network that Darknet and OpenCV 4 need."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nets.yolo.box_coder import DARKNET
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import make_config
from utils.core.errors import UserError, shorten
from utils.core.inputs import read_file
from utils.core.schema import ModelConfig

Section = tuple[str, Mapping[str, object]]
Number = TypeVar("Number", int, float)
MAX_BYTES = 2**20
SHARED = ("classes", "anchors", "num", "scale_x_y", "new_coords")  # by all [yolo] layers
# Of the heads after the first: layer where the branch begins, channels of its 1x1 convolution,
# layer of the backbone that joins it, channels of its 3x3 convolution
BRANCHES = ((-4, 128, 23, 256), (-3, 64, 15, 128))


@dataclass(frozen=True)
class DarknetCfg:
    """What a `.cfg` file says about a YOLOv4-tiny.

    Attributes:
        input_size: (height, width) in pixels.
        num_classes: number of classes.
        model: the settings of the box coder.
    """

    input_size: tuple[int, int]
    num_classes: int
    model: ModelConfig


def darknet_cfg(network: YOLOv4Tiny, size: tuple[int, int]) -> str:
    """Return the `.cfg` of a plain YOLOv4-tiny, in the order of `nets.io.darknet.LAYERS`.

    It is sufficient for detection; to train with Darknet, add learning rates to `[net]`.

    Args:
        network: a network without attention.
        size: (height, width) of the input in pixels.
    """
    height, width = size
    masks = network.coder.masks
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3}
    sections: list[Section] = [("net", net), _conv(32, 3, 2), _conv(64, 3, 2)]
    for channels in (64, 128, 256):
        sections += _csp_block(channels)
    sections += [_conv(512, 3), _conv(256, 1), *_head(network, 0, 512)]
    for head, (start, reduced, joined, channels) in enumerate(BRANCHES[: len(masks) - 1], 1):
        sections += [_route(start), _conv(reduced, 1), ("upsample", {"stride": 2})]
        sections += [_route(-1, joined), *_head(network, head, channels)]
    return "\n".join(_text(*section) for section in sections)


def _csp_block(channels: int) -> list[Section]:
    half = channels // 2
    return [
        _conv(channels, 3),
        ("route", {"layers": -1, "groups": 2, "group_id": 1}),  # the second half of the channels
        _conv(half, 3),
        _conv(half, 3),
        _route(-1, -2),
        _conv(channels, 1),
        _route(-6, -1),
        ("maxpool", {"size": 2, "stride": 2}),
    ]


def _head(network: YOLOv4Tiny, head: int, channels: int) -> list[Section]:
    """Return a head; its `[yolo]` layer expects probabilities with new_coords, else logits."""
    coder = network.coder
    output = {
        "filters": 3 * (5 + network.num_classes),
        "size": 1,
        "stride": 1,
        "pad": 1,
        "activation": "logistic" if coder.new_coords else "linear",
    }
    anchors = [f"{width:.9g},{height:.9g}" for width, height in coder.anchors.tolist()]
    yolo = {
        "mask": ",".join(str(index) for index in coder.masks[head]),
        "anchors": ", ".join(anchors),
        "classes": network.num_classes,
        "num": len(anchors),
        "scale_x_y": f"{coder.scale_x_y:.9g}",
    }
    if coder.new_coords:
        yolo["new_coords"] = 1
    return [_conv(channels, 3), ("convolutional", output), ("yolo", yolo)]


def _conv(filters: int, size: int, stride: int = 1) -> Section:
    options = {"batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1}
    return "convolutional", {**options, "activation": "leaky"}


def _route(*layers: int) -> Section:
    return "route", {"layers": ",".join(str(layer) for layer in layers)}


def _text(kind: str, options: Mapping[str, object]) -> str:
    lines = [f"{key}={value}" for key, value in options.items()]
    return "\n".join([f"[{kind}]", *lines, ""])


def read_cfg(path: Path) -> DarknetCfg:
    """Read the `.cfg` of a YOLOv4-tiny.

    Raises:
        UserError: not readable, or lacks two or three `[yolo]` layers with three anchors each.
    """
    sections = _read_sections(path)
    nets = [options for kind, options in sections if kind == "net"]
    yolo = [options for kind, options in sections if kind == "yolo"]
    if not nets:
        raise UserError(f"{path}: not a cfg of YOLOv4-tiny: no [net] section")
    if len(yolo) not in DARKNET:
        raise UserError(
            f"{path}: not a cfg of YOLOv4-tiny: {len(yolo)} [yolo] layers, expected 2 or 3"
        )
    for key in SHARED:
        if len({section.get(key) for section in yolo}) > 1:
            raise UserError(f"{path}: {key} differs between the [yolo] layers")
    net, *heads = (_Reader(path, section) for section in (nets[0], *yolo))
    head = heads[0]
    if net.number("channels", int, "3") != 3:
        raise UserError(f"{path}: channels: expected 3")
    anchors = head.numbers("anchors", float)
    if len(anchors) % 2:
        raise UserError(f"{path}: anchors: {len(anchors)} numbers, expected pairs")
    values = {
        "input_size": [net.number("height", int), net.number("width", int)],
        "model": {
            "heads": len(heads),
            "anchors": list(zip(anchors[::2], anchors[1::2], strict=True)),
            "anchor_masks": [one.numbers("mask", int) for one in heads],
            "new_coords": head.number("new_coords", int, "0") == 1,
            "scale_x_y": head.number("scale_x_y", float, "1"),
        },
    }
    config = make_config(values, str(path))
    return DarknetCfg(config.input_size, head.number("classes", int), config.model)


@dataclass(frozen=True)
class _Reader:
    """Reads the numbers in a section.

    Attributes:
        path: the file, for error messages.
        options: the section.
    """

    path: Path
    options: Mapping[str, str]

    def number(self, key: str, kind: Callable[[str], Number], default: str = "") -> Number:
        """The only number of a key."""
        values = self.numbers(key, kind, default)
        if len(values) != 1:
            raise UserError(f"{self.path}: {key}: {len(values)} numbers, expected one")
        return values[0]

    def numbers(
        self, key: str, kind: Callable[[str], Number], default: str = ""
    ) -> tuple[Number, ...]:
        """The numbers of a key, separated by commas; without a default it must be there."""
        text = self.options.get(key, default)
        if not text:
            raise UserError(f"{self.path}: not a cfg of YOLOv4-tiny: {key} is missing")
        try:
            return tuple(kind(number) for number in text.rstrip(", ").split(","))
        except ValueError:
            wanted = "integers" if kind is int else "numbers"
            raise UserError(
                f"{self.path}: {key}: expected {wanted}, got '{shorten(text)}'"
            ) from None


def _read_sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    sections: list[tuple[str, dict[str, str]]] = []
    content = read_file(path, max_bytes=MAX_BYTES).decode("utf-8", "replace")
    for line in content.splitlines():
        text = re.split("[#;]", line)[0].strip()
        key, equals, value = text.partition("=")
        if text.startswith("["):
            sections.append((text.strip("[]"), {}))
        elif equals and sections:
            sections[-1][1][key.strip()] = value.strip()
    return sections
