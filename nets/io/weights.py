"""Reading pretrained weights of every format, loading them, and reporting what matched.

Formats: checkpoints of this project (`.pt`), Darknet's (`.weights`, also truncated after a layer,
like `yolov4-tiny.conv.29`), and state dictionaries of bubbliiiing/yolov4-tiny-pytorch (`.pth`,
whole or backbone only).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from nets.attention import IdentityStart
from nets.attention.start import keeps_input
from nets.io import darknet, reference
from nets.io.checkpoints import check, is_checkpoint
from nets.io.darknet_cfg import DarknetCfg
from nets.io.downloads import TORCH_SUFFIXES, locate_weights
from nets.io.tensors import check_tensors, count_classes
from nets.io.torch_files import read_torch_file
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import restore_config
from utils.core.errors import UserError, shorten
from utils.core.inputs import check_input
from utils.core.schema import ModelConfig
from utils.core.validation import shown

SHOWN = 4  # number of names per line of a report


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        path: the file.
        tensors: name (this project's) to tensor.
        checkpoint: the whole content of a checkpoint of this project; None for other formats.
        cfg: Darknet's description of the network; None: there is none.
    """

    path: Path
    tensors: dict[str, Tensor]
    checkpoint: Mapping[str, Any] | None = None
    cfg: Path | None = None

    @property
    def is_darknet(self) -> bool:
        """Whether it is a Darknet file."""
        return self.path.suffix not in TORCH_SUFFIXES

    @cached_property
    def num_classes(self) -> int | None:
        """The number of classes of its heads; None if it has none.

        Raises:
            UserError: the shapes of its heads are not those of a YOLOv4-tiny.
        """
        return count_classes(self.tensors, str(self.path))

    @property
    def heads(self) -> int:
        """Its number of heads; 2 if it lacks some."""
        return 3 if "predict8.weight" in self.tensors else 2

    @cached_property
    def description(self) -> DarknetCfg | None:
        """What the `.cfg` says; None: there is none, or the file has no heads.

        Raises:
            UserError: it does not describe the weights.
        """
        if self.cfg is None or self.num_classes is None:
            return None
        return darknet.read_description(self.cfg, self.num_classes, self.heads)

    @cached_property
    def model_config(self) -> ModelConfig | None:
        """The box coder settings that its heads were trained with; None if it has no heads.

        Raises:
            UserError: the `.cfg` does not describe it.
        """
        if self.num_classes is None:
            return None
        if self.checkpoint is not None:
            saved = restore_config(self.checkpoint["config"], str(self.path)).model
            if saved.anchors != "auto":
                return saved
            return ModelConfig(**{**dict(saved), "anchors": self.checkpoint["anchors"]})
        if not self.is_darknet:
            return reference.MODEL_CONFIG
        return self.description.model if self.description else darknet.MODEL_CONFIGS[self.heads]

    @property
    def attention_init(self) -> Literal["paper", "identity"] | None:
        """How its attention blocks were started; None if it has none."""
        if not any(name.startswith("attention.") for name in self.tensors):
            return None
        if self.checkpoint is None:
            return "paper"
        return restore_config(self.checkpoint["config"], str(self.path)).attention.init or "paper"


@dataclass(frozen=True)
class MatchReport:
    """Which tensors of a weights file were loaded into a network.

    Attributes:
        path: the file.
        matched: names of the network's tensors that were loaded.
        total: number of tensors in the file.
        mismatched: "name: shape in the file, shape in the network".
        unexpected: tensors of the file that the network lacks.
        missing: tensors of the network that keep their initial values.
        gated: attention blocks saved without an identity gate and loaded behind a closed one.
        erasing: attention blocks that are not in the file and let little of their input through.
    """

    path: Path
    matched: list[str]
    total: int
    mismatched: list[str]
    unexpected: list[str]
    missing: list[str]
    gated: list[str] = field(default_factory=list)
    erasing: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as lines of text for the terminal."""
        percent = 100 * len(self.matched) / max(1, self.total)
        matched = f"{len(self.matched)} of {self.total} pretrained tensors matched"
        lines = [f"{self.path}: {matched} ({percent:.0f}%)"]
        details = {
            "different shape, not loaded": self.mismatched,
            "not in this network": self.unexpected,
            "left at their initial values": self.missing,
            "no effect until training opens their identity gate "
            "(attention.init=paper has none)": self.gated,
            "warning: new blocks that erase the pretrained features "
            "(attention.init=identity keeps them)": self.erasing,
        }
        for title, names in details.items():
            if names:
                more = f", ... ({len(names)})" if len(names) > SHOWN else ""
                lines.append(f"  {title}: {', '.join(names[:SHOWN])}{more}")
        return lines


def read_weights(path: str | Path, cfg: str | Path | None = None) -> WeightsFile:
    """Read a weights file of any known format.

    Args:
        path: `.pt` or `.pth` (this project's or the reference's), `.weights`, or a Darknet file
            truncated after a layer; or the address of one, or the name of public weights, as for
            `nets.io.downloads.locate_weights`.
        cfg: the `.cfg` of Darknet weights; None: the one next to them, if any.

    Raises:
        UserError: the file is missing, damaged, or in an unknown format.
    """
    path = locate_weights(path)
    check_input(path)
    if path.suffix == ".weights" or re.search(r"\.conv\.\d+$", path.name):
        return WeightsFile(path, darknet.read_darknet(path), cfg=_find_cfg(path, cfg))
    refuse_cfg(path, cfg)
    if path.suffix in TORCH_SUFFIXES:
        content = read_torch_file(path)
        if is_checkpoint(content):
            check(content, path)
            return WeightsFile(path, content["model"], content)
        return WeightsFile(path, _reference_tensors(path, content))
    raise UserError(f"{path}: expected .pt (ours), .pth (reference) or .weights (Darknet)")


def refuse_cfg(path: Path, cfg: str | Path | None) -> None:
    """Refuse a `.cfg` for weights that are not Darknet's.

    Raises:
        UserError: there is one.
    """
    if cfg is not None:
        raise UserError(f"cfg={cfg}: only Darknet weights have a .cfg, not {path}")


def _find_cfg(path: Path, cfg: str | Path | None) -> Path | None:
    if cfg is not None:
        check_input(cfg)
        return Path(cfg)
    beside = path.with_suffix(".cfg")
    return beside if beside.is_file() else None


def _reference_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dictionary, bare or under the key "state_dict"."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _not_a_state_dict(path, content)
    if not all(isinstance(key, str) and isinstance(content[key], Tensor) for key in content):
        raise _not_a_state_dict(path, content)
    check_tensors(content, str(path))
    tensors: dict[str, Tensor] = {}
    for name, tensor in content.items():
        renamed = reference.rename(name)
        if renamed in tensors:
            raise UserError(f"{path}: {shorten(name)}: the file has two tensors of this name")
        if not name.endswith("num_batches_tracked"):
            tensors[renamed] = tensor
    return tensors


def _not_a_state_dict(path: Path, content: Any) -> UserError:
    return UserError(f"{path}: expected a state dictionary (name to tensor), got {shown(content)}")


def load_weights(network: YOLOv4Tiny, weights: WeightsFile) -> MatchReport:
    """Load the matching tensors of a weights file into a network.

    Tensors of a different shape, such as heads for other classes, keep their initial values. A
    block that was trained without an identity gate can be loaded behind one; the gate keeps its
    initial value of zero.

    Args:
        network: the network to load into, modified in place.
        weights: what `read_weights` returned.

    Raises:
        UserError: nothing in the file fits the network.
    """
    gated = _bare_blocks(weights.tensors, network)
    tensors = {_behind_gate(name, gated): tensor for name, tensor in weights.tensors.items()}
    own = network.state_dict()
    fitting: dict[str, Tensor] = {}
    mismatched: list[str] = []
    unexpected: list[str] = []
    for name, tensor in tensors.items():
        if name not in own:
            unexpected.append(name)
        elif tensor.shape != own[name].shape:
            mismatched.append(f"{name}: {tuple(tensor.shape)}, here {tuple(own[name].shape)}")
        else:
            fitting[name] = tensor
    if not fitting:
        raise UserError(f"{weights.path}: none of its {len(tensors)} tensors fits this network")
    network.load_state_dict(fitting, strict=False)
    missing = [
        name for name in own if name not in tensors and not name.endswith("num_batches_tracked")
    ]
    return MatchReport(
        weights.path,
        list(fitting),
        len(tensors),
        mismatched,
        unexpected,
        missing,
        gated,
        _erasing_blocks(network, fitting),
    )


def _erasing_blocks(network: YOLOv4Tiny, loaded: Mapping[str, Tensor]) -> list[str]:
    """Return the blocks that stay as they were built, and keep little of pretrained features."""
    erasing = []
    for site, block in network.attention.items():
        name = f"attention.{site}"
        is_loaded = any(key.startswith(f"{name}.") for key in loaded)
        if is_loaded or isinstance(block, IdentityStart):
            continue
        if not keeps_input(block, network.sites[site]):
            erasing.append(name)
    return erasing


def _bare_blocks(tensors: Mapping[str, Tensor], network: YOLOv4Tiny) -> list[str]:
    """Return the network's identity gates whose block was saved without a gate."""
    bare = []
    for site, gate in network.attention.items():
        prefix = f"attention.{site}."
        saved = {name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
        if isinstance(gate, IdentityStart) and saved and gate.block.state_dict().keys() >= saved:
            bare.append(prefix.removesuffix("."))
    return bare


def _behind_gate(name: str, gated: list[str]) -> str:
    block = ".".join(name.split(".")[:2])
    return f"{block}.block{name.removeprefix(block)}" if block in gated else name


def choose_model_config(
    requested: ModelConfig, num_classes: int, weights: WeightsFile
) -> ModelConfig:
    """Return the box coder settings of a network that starts from pretrained weights.

    Heads only make sense with the coder that they were trained with: if the file's heads fit the
    network, their settings replace those that the configuration leaves at the defaults. With
    another number of heads, the anchors cannot fit, and `model` stays as it is.

    Args:
        requested: `config.model`.
        num_classes: number of classes of the network.
        weights: the pretrained weights.

    Returns:
        The file's settings, or `requested` if the heads do not fit.

    Raises:
        UserError: the configuration asks for settings that differ from the file's; names the keys.
    """
    trained_with = weights.model_config if weights.num_classes == num_classes else None
    if trained_with is None or trained_with.heads != requested.heads:
        return requested
    conflicts = []
    for key in ModelConfig.model_fields:
        wanted, value = _setting(requested, key), _setting(trained_with, key)
        if getattr(requested, key) != getattr(ModelConfig(), key) and not _equal(wanted, value):
            conflicts.append(f"model.{key}")
    if conflicts:
        raise UserError(
            f"{weights.path}: its heads fit, but were trained with another "
            f"{', '.join(conflicts)}; leave the default, which takes the file's"
        )
    return trained_with


def _setting(model: ModelConfig, key: str) -> Any:
    if key == "scale_x_y" and model.scale_x_y is None:
        return 2.0 if model.new_coords else 1.05
    return model.masks if key == "anchor_masks" else getattr(model, key)


def _equal(first: Any, second: Any) -> bool:
    """Equal up to rounding to float32, the type of the anchors in a checkpoint."""
    return "auto" not in (first, second) and np.allclose(first, second, rtol=1e-6, atol=0)
