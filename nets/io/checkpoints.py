"""Checkpoints: written whole or not at all, and checked before anything in them is used."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from nets.attention import is_user_block, parse_phi
from nets.io.tensors import check_fit, check_tensors, count_classes
from nets.io.torch_files import read_torch_file
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model, check_anchor_count
from utils.core.class_names import checked_names
from utils.core.config import restore_config
from utils.core.errors import UserError
from utils.core.outputs import write_file
from utils.core.schema import Config
from utils.core.validation import SavedSection, check_plain, validate

FORMAT = "yolov4-tiny-attention"


AnchorSide = Annotated[float, Field(gt=0, le=1e6)]  # larger ones overflow when a box is decoded
Anchor = Annotated[list[AnchorSide], Field(min_length=2, max_length=2)]
Anchors = Annotated[list[Anchor], Field(min_length=6, max_length=9)]


class Checkpoint(SavedSection):
    """The content of every checkpoint; a `last.pt` has more, which `utils.engine` checks.

    Attributes:
        config: the configuration of the experiment, maybe with former names of keys.
        names: the class names.
        anchors: [width, height] in input pixels, three per head.
        model: the tensors of the network by name.
        epoch: number of epochs trained.
    """

    model_config = ConfigDict(extra="allow")

    config: dict[str, Any]
    names: list[str]
    anchors: Anchors
    model: dict[str, Tensor]
    epoch: Annotated[int, Field(ge=0)]


def describe(
    network: YOLOv4Tiny, config: Config, names: Sequence[str], epoch: int = 0
) -> dict[str, Any]:
    """Return the content of a `Checkpoint`: a network and everything needed to use it.

    Args:
        network: the network.
        config: its configuration.
        names: the class names.
        epoch: number of epochs trained.
    """
    return {
        "config": config.model_dump(mode="json"),
        "names": list(names),
        "anchors": network.coder.anchors.tolist(),
        "model": network.state_dict(),
        "epoch": epoch,
    }


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint: at any time, `path` is either the old file or the new one.

    Args:
        path: the file to write.
        content: a `Checkpoint`: tensors and plain values.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()  # torch.save into a file hides why it cannot be written
    torch.save({"format": FORMAT, **content}, buffer)
    write_file(path, buffer.getvalue(), durable=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU.

    Args:
        path: the file to read.

    Returns:
        The content that was passed to `save`, plus the key "format"; see `Checkpoint`.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    content = read_torch_file(path)
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of this project; use it as pretrained weights: "
            f"weights={path}"
        )
    check(content, path)
    return content


def is_checkpoint(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of this project, whatever the file's name."""
    found = content.get("format") if isinstance(content, dict) else None
    return isinstance(found, str) and found == FORMAT


def check(content: Any, path: Path) -> None:
    """Refuse a content that is not a `Checkpoint`.

    Raises:
        UserError: names the file, the key, what was expected and what was found.
    """
    validate(Checkpoint, content, str(path))
    checked_names(content["names"], f"{path}: names")
    check_plain(content["config"], f"{path}: config")
    config = restore_config(content["config"], f"{path}: config")
    check_anchor_count(content["anchors"], config.model, f"{path}: anchors")
    check_tensors(content["model"], f"{path}: model")
    count = count_classes(content["model"], f"{path}: model")
    if count != len(content["names"]):
        raise UserError(
            f"{path}: names: {len(content['names'])} class names, but the heads have "
            f"{count or 'no'} classes"
        )


def build_network(
    content: Mapping[str, Any], config: Config, path: Path, wanted_by: str = "its configuration"
) -> YOLOv4Tiny:
    """Build the network of a checkpoint, with initial values.

    It is built without memory first, and compared with the tensors of the file: what a file asks
    for is never larger than what it holds.

    Args:
        content: what `load` returned.
        config: its configuration, maybe changed.
        path: the file, for error messages.
        wanted_by: what asks for the network, likewise.

    Raises:
        UserError: the tensors do not fit the network.
    """
    arguments = (config, len(content["names"]), content["anchors"])
    try:
        network = build_shapes(*arguments)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    check_fit(network, content["model"], str(path), wanted_by)
    return build_model(*arguments)


def build_shapes(
    config: Config, num_classes: int, anchors: Sequence[Sequence[float]]
) -> YOLOv4Tiny:
    """`build_model` for the shapes only: on the meta device, without memory.

    With a user's block, which may need values where it is built, on the CPU.
    """
    specs = parse_phi(config.phi, config.attention.at).values()
    with torch.device("cpu" if any(map(is_user_block, specs)) else "meta"):
        return build_model(config, num_classes, anchors)
