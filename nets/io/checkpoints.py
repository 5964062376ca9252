"""Checkpoints: written atomically, read without executing anything from the file."""

import io
from pathlib import Path
from typing import Any

import torch

from utils.core.errors import UserError
from utils.core.files import write_file

FORMAT = "yolov4-tiny-attention"


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: at any time, `path` is either the old file or the new one.

    Args:
        path: the file to write.
        content: tensors and plain values.
    """
    buffer = io.BytesIO()  # torch.save into a file hides why it cannot be written
    torch.save({"format": FORMAT, **content}, buffer)
    write_file(path, buffer.getvalue(), durable=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU.

    Args:
        path: the file to read.

    Returns:
        The content that was passed to `save`, plus the key "format".

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    content = read_torch_file(path)
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of this project; use it as pretrained weights: "
            f"weights={path}"
        )
    return content


def is_checkpoint(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of this project, whatever the file's name."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_torch_file(path: Path) -> Any:
    """`torch.load`, restricted to tensors and plain values, on the CPU.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # fed arbitrary bytes, the unpickler raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not readable as PyTorch weights: {reason}") from None
