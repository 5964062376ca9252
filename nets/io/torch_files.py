"""Files of `torch.save`, read without executing or believing anything in them."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.core.errors import UserError, shorten
from utils.core.inputs import read_file

MAX_BYTES = 4 * 2**30  # the last.pt of a YOLOv4-tiny has about 0.1 GB
SHOWN = 3  # number of names in a message


def read_torch_file(path: Path) -> Any:
    """`torch.load`, restricted to tensors and plain values, on the CPU.

    The checksums in the file are verified, which `torch.load` does not do.

    Raises:
        UserError: the file cannot be read, is damaged, or holds other objects.
    """
    data = read_file(path, max_bytes=MAX_BYTES)
    try:
        problem = _find_problem(data) if data.startswith(b"PK\x03\x04") else ""
        if not problem:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about formats of former versions
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # fed arbitrary bytes, both readers raise almost anything
        problem = _describe_objects(data)
    raise UserError(f"{path}: not readable as PyTorch weights: {problem}")


def _find_problem(data: bytes) -> str:
    """What is wrong with the zip archive that `torch.save` writes; empty if nothing is.

    It stores its records as they are, so one that is larger than the file is a trap.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or sum(record.file_size for record in records) > len(data):
            return "its records are compressed, or larger than the file"
        damaged = archive.testzip()
    return f"damaged: the checksum of {shorten(damaged)} is wrong" if damaged else ""


def _describe_objects(data: bytes) -> str:
    """Why `torch.load` refused the data: other objects than tensors, or damage."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except Exception:  # as above
        names = []
    if not names:
        return "damaged, cut short, or not written by torch.save"
    more = ", ..." if len(names) > SHOWN else ""
    return (
        f"it holds objects ({shorten(', '.join(names[:SHOWN]))}{more}) that are not loaded, since "
        "they could execute anything; save the network's state_dict() instead"
    )
