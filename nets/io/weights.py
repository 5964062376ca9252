"""Reading weights of every format into a network, with a report of what matched.

Formats: checkpoints of this project (`.pt`), Darknet's (`.weights`, also cut off after a layer like
`yolov4-tiny.conv.29`), and state dictionaries of bubbliiiing/yolov4-tiny-pytorch (`.pth`, whole or backbone only).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nets.attention import IdentityStart
from nets.io.checkpoints import is_ours, read_torch_file
from nets.yolo.blocks import ConvBNAct
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError

DARKNET_EPS = 1e-6  # of OpenCV's Darknet importer; PyTorch's 1e-5 moves the raw maps by 5e-4 and large boxes by pixels

# State-dictionary names of the reference implementation -> ours, in this order
REFERENCE_NAMES = (
    (r"^module\.", ""),
    (r"^(conv[123]|resblock_body\d)\.", r"backbone.\1."),
    (r"^backbone\.conv1\.", "backbone.stem1."),
    (r"^backbone\.conv2\.", "backbone.stem2."),
    (r"^backbone\.conv3\.", "backbone.last."),
    (r"^backbone\.resblock_body(\d)\.", r"backbone.csp\1."),
    (r"^conv_for_P5\.", "neck.lateral."),
    (r"^upsample\.upsample\.0\.", "neck.reduce."),
    (r"^yolo_headP5\.0\.", "head32."),
    (r"^yolo_headP5\.1\.", "predict32."),
    (r"^yolo_headP4\.0\.", "head16."),
    (r"^yolo_headP4\.1\.", "predict16."),
    (r"^(feat1|feat2|upsample)_att\.", r"attention.\1."),
    (r"channelattention\.fc\.0\.", "channelattention.fc1."),
    (r"channelattention\.fc\.2\.", "channelattention.fc2."),
    (r"spatialattention\.conv\.", "spatialattention.conv1."),
)


@dataclass(frozen=True)
class MatchReport:
    """What became of a weights file.

    Attributes:
        matched: names of the network's tensors that were filled. total: tensors in the file.
        misshapen: "name: file shape, network shape". unknown: tensors in the file that the network lacks.
        fresh: tensors of the network that keep their initial values.
        gated: attention blocks that the file holds bare and the network behind a closed identity gate.
    """

    path: Path
    matched: list[str]
    total: int
    misshapen: list[str]
    unknown: list[str]
    fresh: list[str]
    gated: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text for the terminal."""
        share = 100 * len(self.matched) / max(1, self.total)
        lines = [
            f"{self.path}: {len(self.matched)} of {self.total} pretrained tensors matched ({share:.0f}%)"
        ]
        for title, items in (
            ("other shape, not loaded", self.misshapen),
            ("not in this network", self.unknown),
            ("left at their start", self.fresh),
            (
                "no effect until training opens their identity gate (attention.init=paper has none)",
                self.gated,
            ),
        ):
            if items:
                more = f", ... ({len(items)})" if len(items) > 4 else ""
                lines.append(f"  {title}: {', '.join(items[:4])}{more}")
        return lines


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        path: the file.
        tensors: under this project's names.
    """

    path: Path
    tensors: dict[str, Tensor]


def read_weights(path: str | Path) -> WeightsFile:
    """Read a weights file of any known format.

    Raises:
        UserError: file missing or damaged, or of an unknown format.
    """
    return WeightsFile(Path(path), read_state(Path(path)))


def load_weights(network: YOLOv4Tiny, weights: WeightsFile) -> MatchReport:
    """Fill a network from a weights file; tensors of another shape (a head for other classes) keep their start.

    A block that was trained without an identity gate fits the same block behind one; the gate keeps its start, zero.

    Raises:
        UserError: nothing in the file fits the network.
    """
    path, state = weights.path, weights.tensors
    gated = _bare_blocks(state, network)
    state = {_behind_gate(name, gated): tensor for name, tensor in state.items()}
    own = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if name in own and own[name].shape == tensor.shape
    }
    report = MatchReport(
        path,
        list(fitting),
        len(state),
        [
            f"{name}: {tuple(tensor.shape)}, here {tuple(own[name].shape)}"
            for name, tensor in state.items()
            if name in own and name not in fitting
        ],
        [name for name in state if name not in own],
        [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        gated,
    )
    if not fitting:
        raise UserError(f"weights={path}: none of its {len(state)} tensors fits this network")
    network.load_state_dict(fitting, strict=False)
    return report


def _bare_blocks(state: Mapping[str, Tensor], network: YOLOv4Tiny) -> list[str]:
    """Names of the network's identity gates whose block the file holds without a gate."""
    bare = []
    for site, gate in network.attention.items():
        name = f"attention.{site}"
        held = [key.removeprefix(f"{name}.") for key in state if key.startswith(f"{name}.")]
        if isinstance(gate, IdentityStart) and held and gate.block.state_dict().keys() >= set(held):
            bare.append(name)
    return bare


def _behind_gate(name: str, gated: Sequence[str]) -> str:
    block = ".".join(name.split(".")[:2])
    return f"{block}.block{name.removeprefix(block)}" if block in gated else name


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file under this project's names."""
    if not path.is_file():
        raise UserError(f"weights={path}: no such file")
    if path.suffix in (".pt", ".pth"):
        return _read_torch(path)
    if path.suffix == ".weights" or re.search(r"\.conv\.\d+$", path.name):
        return read_darknet(path)
    raise UserError(f"weights={path}: expected .pt (ours), .pth (reference) or .weights (Darknet)")


def _read_torch(path: Path) -> dict[str, Tensor]:
    content = read_torch_file(path)
    if is_ours(content):
        return content["model"]
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UserError(
            f"weights={path}: expected a state dictionary (name to tensor), got {type(content).__name__}"
        )
    return {
        _our_name(name): tensor
        for name, tensor in content.items()
        if not name.endswith("num_batches_tracked")
    }


def _our_name(name: str) -> str:
    for pattern, replacement in REFERENCE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def darknet_layers(network: YOLOv4Tiny) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """(name, convolution, batch norm) in the order of `yolov4-tiny.cfg`; the two plain convolutions have no norm."""
    order = ["backbone.stem1", "backbone.stem2"]
    order += [f"backbone.csp{stage}.conv{index}" for stage in (1, 2, 3) for index in (1, 2, 3, 4)]
    order += [
        "backbone.last",
        "neck.lateral",
        "head32",
        "predict32",
        "neck.reduce",
        "head16",
        "predict16",
    ]
    for name in order:
        layer = network.get_submodule(name)
        if isinstance(layer, ConvBNAct):
            yield name, layer.conv, layer.bn
        else:
            assert isinstance(layer, nn.Conv2d)
            yield name, layer, None


def darknet_tensors(network: YOLOv4Tiny) -> list[tuple[str, Tensor]]:
    """(name, tensor) of a network in the order in which Darknet's file holds them."""
    tensors: list[tuple[str, Tensor]] = []
    for name, conv, norm in darknet_layers(network):
        if norm is None:
            assert conv.bias is not None
            tensors += [(f"{name}.bias", conv.bias.data), (f"{name}.weight", conv.weight.data)]
            continue
        statistics = {"bias": norm.bias, "weight": norm.weight, "running_mean": norm.running_mean}
        tensors += [
            (f"{name}.bn.{key}", tensor.data)
            for key, tensor in statistics.items()
            if tensor is not None
        ]
        assert norm.running_var is not None
        tensors += [
            (f"{name}.bn.running_var", norm.running_var),
            (f"{name}.conv.weight", conv.weight.data),
        ]
    return tensors


def read_darknet(path: Path) -> dict[str, Tensor]:
    """Tensors of a Darknet file: int32 major, minor, revision; seen (uint64 since 0.2); then float32 layer by layer.

    The number of classes follows from the file's length. A file cut off after a whole layer is read that far.

    Raises:
        UserError: the length fits no YOLOv4-tiny.
    """
    values = _darknet_values(path)
    with torch.device("meta"):
        layout = darknet_tensors(YOLOv4Tiny(darknet_classes(values.size) or 1))
    state: dict[str, Tensor] = {}
    start = 0
    for name, like in layout:
        if start == values.size:
            break
        if start + like.numel() > values.size:
            break
        state[name] = torch.from_numpy(values[start : start + like.numel()].copy()).view(like.shape)
        start += like.numel()
    if start < values.size:
        raise UserError(
            f"weights={path}: its {values.size} values fit no YOLOv4-tiny: cut off, or another network?"
        )
    return state


def darknet_classes(values: int) -> int | None:
    """The number of classes of a whole YOLOv4-tiny file of so many float32 values; none if it is cut off.

    Each of the 3*(5+C) outputs has 512 + 1 values in one head and 256 + 1 in the other.
    """
    with torch.device("meta"):
        one_class = sum(tensor.numel() for _, tensor in darknet_tensors(YOLOv4Tiny(1)))
    per_class = 3 * (512 + 1 + 256 + 1)
    more, rest = divmod(values - one_class, per_class)
    return more + 1 if more >= 0 and rest == 0 else None


def _darknet_values(path: Path) -> np.ndarray:
    data = path.read_bytes()
    if len(data) < 20:
        raise UserError(f"weights={path}: too short for a Darknet file")
    major, minor, _ = np.frombuffer(data, "<i4", 3).tolist()
    header = 20 if major * 10 + minor >= 2 else 16
    if not (0 <= major < 1000 and 0 <= minor < 1000) or (len(data) - header) % 4:
        raise UserError(f"weights={path}: not a Darknet weights file")
    return np.frombuffer(data, "<f4", offset=header)


def write_darknet(network: YOLOv4Tiny, path: str | Path, seen: int = 0) -> None:
    """Write a plain YOLOv4-tiny as a Darknet `.weights` file; variances make up for Darknet's other epsilon.

    Raises:
        UserError: the network carries attention, for which Darknet has no layer.
    """
    if len(network.attention):
        raise UserError(
            "export to darknet: Darknet has no attention layers; only phi=none can be written"
        )
    with open(path, "wb") as file:
        np.array([0, 2, 5], "<i4").tofile(file)
        np.array([seen], "<u8").tofile(file)
        added = {
            f"{name}.bn.running_var": norm.eps
            for name, _, norm in darknet_layers(network)
            if norm is not None
        }
        for name, tensor in darknet_tensors(network):
            values = tensor.detach().cpu().float() + (added.get(name, DARKNET_EPS) - DARKNET_EPS)
            values.numpy().astype("<f4").tofile(file)
