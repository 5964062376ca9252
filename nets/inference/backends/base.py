"""The interface of a backend, what one is made from, and which devices and precisions each computes on."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nets.io.onnx_export import write_onnx
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.devices import pick_device, pick_precision
from utils.core.errors import UserError, require_package
from utils.core.schema import Config

# name: precisions it computes in, the default first
BACKENDS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "compile": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
}
ON_TORCH = ("torch", "compile")
CACHE = Path(".cache") / "models"  # of a network that comes from no file


class Backend(Protocol):
    """Runs a network. `name` and `precision` say how, e.g. "openvino" in "bf16"."""

    name: str
    precision: str

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Uint8 canvases `(B, H, W, 3)`, RGB -> float32 boxes `(B, N, 4)`, xyxy input pixels, scores `(B, N, C)`."""
        ...


@dataclass
class Source:
    """What backends are made from.

    Attributes:
        network: in evaluation mode; on the meta device (without values) where all there is is an ONNX file.
        config, names: as in `Detector`.
        onnx: the ONNX file that the detector was loaded from.
        weights: the file that the weights came from; exported and quantized models are kept beside it in `.cache`.
        calibration: returns uint8 canvases `(n, H, W, 3)` that are typical of the user's data; needed for int8.
    """

    network: YOLOv4Tiny
    config: Config
    names: Sequence[str]
    onnx: Path | None = None
    weights: Path | None = None
    calibration: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @cached_property
    def key(self) -> str:
        """A fingerprint of the weights and of all that decides what is computed with them."""
        digest = hashlib.sha256()
        if self.onnx:
            digest.update(self.onnx.read_bytes())
        else:
            parts = self.config.model_dump_json(include={"input_size", "phi", "attention", "model"})
            digest.update(parts.encode())
            digest.update(self.network.coder.anchors.cpu().numpy().tobytes())
            for name, tensor in self.network.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def onnx_file(self) -> Path:
        """The model as ONNX, exported when it is asked for first."""
        if self.onnx:
            return self.onnx
        path = self.cached(".onnx")
        if not path.is_file():
            part = path.with_suffix(f".{os.getpid()}.onnx")
            write_onnx(self.network, self.config, self.names, part)
            part.replace(path)
        return path

    def cached(self, suffix: str) -> Path:
        """Where a file made from this model lies, or is to be put."""
        given = self.onnx or self.weights
        folder = given.parent / CACHE if given else CACHE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            folder = Path(tempfile.gettempdir())
        return folder / f"{given.stem if given else self.config.name}-{self.key}{suffix}"


def choose_device(backend: str, device: str) -> torch.device:
    """Where a backend computes, of `device` as configured.

    Raises:
        UserError: the device is not there, the backend does not compute on it, or its package is missing.
    """
    if backend in (*ON_TORCH, "auto"):
        return pick_device(device)
    found = pick_device("cpu" if device == "auto" else device)
    package = require_package(backend, f"backend={backend}")
    if backend == "onnxruntime" and "CUDAExecutionProvider" in package.get_available_providers():
        return pick_device(device)
    if found.type != "cpu":
        hint = (
            "; pip install onnxruntime-gpu"
            if backend == "onnxruntime" and found.type == "cuda"
            else ""
        )
        raise UserError(
            f"device={device}: backend={backend} computes on the CPU here; use device=cpu{hint}"
        )
    return found


def choose_precision(backend: str, precision: str, device: torch.device) -> str:
    """What a backend computes in, of `precision` as configured; `auto` is bf16 where it is native, else fp32.

    Raises:
        UserError: the backend does not compute in it.
    """
    offered = [one for name, some in BACKENDS.items() if backend in (name, "auto") for one in some]
    if precision == "auto":
        fast = pick_precision("auto", device)
        return fast if fast in offered else "fp32"
    if precision not in offered:
        able = ", ".join(name for name, some in BACKENDS.items() if precision in some)
        raise UserError(
            f"precision={precision}: backend={backend} computes in {', '.join(offered)}; {precision}: backend={able}"
        )
    return pick_precision(precision, device)
