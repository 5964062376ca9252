"""Darknet's `.cfg`, the description of a network that Darknet and OpenCV 4 need."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import ModelConfig

Section = tuple[str, Mapping[str, object]]


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
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3}
    sections: list[Section] = [("net", net), _conv(32, 3, 2), _conv(64, 3, 2)]
    for channels in (64, 128, 256):
        sections += _csp_block(channels)
    sections += [_conv(512, 3), _conv(256, 1), *_head(network, 0, 512)]
    sections += [_route(-4), _conv(128, 1), ("upsample", {"stride": 2}), _route(-1, 23)]
    sections += _head(network, 1, 256)
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
        UserError: not readable, or lacks two `[yolo]` layers with three of six anchors each.
    """
    sections = _read_sections(path)
    yolo = [options for kind, options in sections if kind == "yolo"]
    try:
        net = next(options for kind, options in sections if kind == "net")
        numbers = [float(number) for number in yolo[0]["anchors"].split(",")]
        values = {
            "input_size": [int(net["height"]), int(net["width"])],
            "model": {
                "anchors": list(zip(numbers[::2], numbers[1::2], strict=True)),
                "anchor_masks": (_mask(yolo[0]), _mask(yolo[1])),
                "new_coords": yolo[0].get("new_coords", "0") == "1",
                "scale_x_y": float(yolo[0].get("scale_x_y", 1)),
            },
        }
        num_classes = int(yolo[0]["classes"])
    except StopIteration:
        raise UserError(f"{path}: not a cfg of YOLOv4-tiny: no [net] section") from None
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: not a cfg of YOLOv4-tiny with two [yolo] layers: {error}"
        ) from None
    config = make_config(values, str(path))
    return DarknetCfg(config.input_size, num_classes, config.model)


def _mask(yolo: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(index) for index in yolo["mask"].split(","))


def _read_sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    sections: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.split("#")[0].strip()
        key, equals, value = text.partition("=")
        if text.startswith("["):
            sections.append((text.strip("[]"), {}))
        elif equals and sections:
            sections[-1][1][key.strip()] = value.strip()
    return sections
