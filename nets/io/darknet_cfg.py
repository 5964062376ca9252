"""A network's description as Darknet's `.cfg`: what its weights file needs to run in Darknet and OpenCV 4."""

from pathlib import Path
from typing import Any

from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError

Section = tuple[str, dict[str, object]]


def darknet_cfg(network: YOLOv4Tiny, size: tuple[int, int]) -> str:
    """The `.cfg` of a plain YOLOv4-tiny (no attention), layer by layer in the order of `weights.darknet_layers`.

    `size` is the input's (height, width) in pixels. It serves detection; training in Darknet needs its rates added to
    `[net]`.
    """
    height, width = size
    net: Section = (
        "net",
        {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3},
    )
    sections = [net, _conv(32, 3, 2), _conv(64, 3, 2)]
    for channels in (64, 128, 256):
        sections += _csp_block(channels)
    sections += [_conv(512, 3), _conv(256, 1), *_head(network, 0, 512)]
    sections += [
        _route(-4),
        _conv(128, 1),
        ("upsample", {"stride": 2}),
        _route(-1, 23),
        *_head(network, 1, 256),
    ]
    return "\n".join(_text(*section) for section in sections)


def _csp_block(channels: int) -> list[Section]:
    half = channels // 2
    inner: list[Section] = [_conv(half, 3), _conv(half, 3), _route(-1, -2), _conv(channels, 1)]
    second_half: Section = ("route", {"layers": -1, "groups": 2, "group_id": 1})
    return [
        _conv(channels, 3),
        second_half,
        *inner,
        _route(-6, -1),
        ("maxpool", {"size": 2, "stride": 2}),
    ]


def _head(network: YOLOv4Tiny, head: int, channels: int) -> list[Section]:
    """The layer with new_coords takes probabilities, the older one logits."""
    coder = network.coder
    outputs = 3 * (5 + network.num_classes)
    last = {"filters": outputs, "size": 1, "stride": 1, "pad": 1}
    yolo = {
        "mask": ",".join(map(str, coder.masks[head])),
        "anchors": ", ".join(
            f"{width:.9g},{height:.9g}" for width, height in coder.anchors.tolist()
        ),
        "classes": network.num_classes,
        "num": len(coder.anchors),
        "scale_x_y": f"{coder.scale_x_y:.9g}",
        **({"new_coords": 1} if coder.new_coords else {}),
    }
    activation = "logistic" if coder.new_coords else "linear"
    return [
        _conv(channels, 3),
        ("convolutional", {**last, "activation": activation}),
        ("yolo", yolo),
    ]


def _conv(filters: int, size: int, stride: int = 1) -> Section:
    options = {"batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1}
    return "convolutional", {**options, "activation": "leaky"}


def _route(*layers: int) -> Section:
    return "route", {"layers": ",".join(map(str, layers))}


def _text(kind: str, options: dict[str, object]) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items()), ""])


def read_cfg(path: Path) -> dict[str, Any]:
    """The settings of a YOLOv4-tiny `.cfg`: `input_size` (height, width), `classes`, and `model` as in `utils.core.schema`.

    Raises:
        UserError: not readable, or without two `[yolo]` layers of three anchors out of six.
    """
    sections = _sections(path)
    net = next((options for kind, options in sections if kind == "net"), {})
    yolo = [options for kind, options in sections if kind == "yolo"]
    try:
        numbers = [float(number) for number in yolo[0]["anchors"].split(",")]
        first, second = ([int(index) for index in one["mask"].split(",")] for one in yolo)
        return {
            "input_size": [int(net["height"]), int(net["width"])],
            "classes": int(yolo[0]["classes"]),
            "model": {
                "anchors": [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)],
                "anchor_masks": (tuple(first), tuple(second)),
                "new_coords": yolo[0].get("new_coords", "0") == "1",
                "scale_x_y": float(yolo[0].get("scale_x_y", 1)),
            },
        }
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: not a cfg of YOLOv4-tiny with two [yolo] layers: {error}"
        ) from None


def _sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    sections: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.split("#")[0].strip()
        key, equals, value = text.partition("=")
        if text.startswith("["):
            sections.append((text.strip("[]"), {}))
        elif equals and sections:
            sections[-1][1][key.strip()] = value.strip()
    return sections
