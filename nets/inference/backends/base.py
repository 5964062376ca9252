"""The interface of a backend, what it is built from, and the devices and precisions it supports."""

import hashlib
import math
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nets.io.exported import ExportedFile
from nets.io.formats import FORMATS
from nets.yolo.box_coder import map_sizes
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.code_state import hash_code
from utils.core.devices import pick_device, pick_precision
from utils.core.errors import UserError, nearest, require_package
from utils.core.file_groups import new_files
from utils.core.inputs import hash_files, read_file
from utils.core.outputs import write_file
from utils.core.schema import Config

# Name -> the precisions that a backend supports, the default first
BACKENDS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "compile": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "ncnn": ("fp32",),
    "litert": ("fp32",),
}
PACKAGES = {"litert": "ai_edge_litert"}  # of backends that do not bear the name of theirs
TORCH_BACKENDS = ("torch", "compile")
CACHE = Path(".cache") / "models"  # next to the weights file, else in the working directory


class Backend(Protocol):
    """Runs a network.

    Attributes:
        name: one of `BACKENDS`.
        precision: the precision it computes in, e.g. "bf16".
    """

    name: str
    precision: str

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network and decode its outputs.

        Args:
            canvases: uint8 `(B, H, W, 3)`, RGB.

        Returns:
            Boxes `(B, N, 4)`, xyxy in input pixels, and scores `(B, N, C)`, 0..1; both float32.
        """
        ...


@dataclass
class ModelSpec:
    """What a backend is built from.

    Attributes:
        network: in evaluation mode; of `checkpoints.build_shapes` if there is only an exported
            file.
        config: as in `Detector`.
        names: the class names.
        exported: the exported file that the detector was loaded from.
        weights: the file that the weights came from; exported and quantized models are cached
            in `.cache` next to it.
        calibration: returns uint8 canvases `(n, H, W, 3)` typical of the user's data; needed for
            int8.
    """

    network: YOLOv4Tiny
    config: Config
    names: Sequence[str]
    exported: ExportedFile | None = None
    weights: Path | None = None
    calibration: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @property
    def origin(self) -> Path | None:
        """The file that the model was loaded from."""
        return self.exported.path if self.exported else self.weights

    @property
    def fingerprint(self) -> str:
        """A hash of all that affects the model's outputs: weights, settings, and the code.

        The code is this project's, PyTorch, and the files that the network's classes come from.
        """
        digest = hashlib.sha256()
        digest.update(f"{hash_code()} {torch.__version__}".encode())
        if self.exported:
            path = self.exported.path
            digest.update(hash_files(FORMATS[path.suffix].files(path)).encode())
            return digest.hexdigest()[:12]
        digest.update(hash_files(_source_files(self.network)).encode())
        keys = {"input_size", "phi", "attention", "model"}
        digest.update(self.config.model_dump_json(include=keys).encode())
        digest.update(self.network.coder.anchors.cpu().numpy().tobytes())
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def file(self, *suffixes: str) -> Path:
        """Return the file that it was loaded from, or its export to a format, made on first use.

        Args:
            *suffixes: of `FORMATS`: what the backend reads; the first is what is made.
        """
        if self.exported and self.exported.path.suffix in suffixes:
            return self.exported.path
        file_format = FORMATS[suffixes[0]]
        write = partial(file_format.write, self.network, self.config, self.names)
        return cached(file_format.files(self.cache_file(suffixes[0])), write)

    def cache_file(self, suffix: str) -> Path:
        """Return the path for a file derived from this model; its folder exists."""
        folder = self.origin.parent / CACHE if self.origin else CACHE
        stem = self.origin.stem if self.origin else self.config.name
        return _writable(folder) / f"{stem}-{self.fingerprint}{suffix}"

    def check_outputs(self, boxes: Tensor, scores: Tensor) -> None:
        """Refuse outputs of a file's network that would pass for an image without objects.

        Args:
            boxes: what the backend returned.
            scores: likewise.

        Raises:
            UserError: a shape that does not fit the class names, NaN or infinity.
        """
        batch, count = scores.shape[0], scores.shape[1]
        if self.exported and not self.exported.has_nms:  # its input size is fixed
            maps = map_sizes(self.config.input_size, self.config.model.heads)
            count = sum(3 * height * width for height, width in maps)
        shape = (batch, count, len(self.names))
        if scores.shape != shape or boxes.shape != (*shape[:2], 4):
            number = count if count != scores.shape[1] else "N"
            raise UserError(
                f"{self.origin}: its network returns boxes {tuple(boxes.shape)} and scores "
                f"{tuple(scores.shape)}, expected (B, {number}, 4) and "
                f"(B, {number}, {len(self.names)})"
            )
        # one number to look at: NaN and infinity survive a sum
        if not math.isfinite(float(boxes.sum() + scores.sum())):
            raise UserError(
                f"{self.origin}: its network returns NaN or infinity: the weights are damaged, or "
                "need precision=fp32"
            )


def _source_files(network: nn.Module) -> list[Path]:
    """The Python files of all classes in a network, a user's blocks included."""
    classes = {base for module in network.modules() for base in type(module).__mro__}
    modules = (sys.modules.get(name) for name in {base.__module__ for base in classes})
    files = {Path(getattr(module, "__file__", None) or "") for module in modules}
    return sorted(file for file in files if file.suffix == ".py" and file.is_file())


def cached(files: Sequence[Path], make: Callable[[Path], object]) -> Path:
    """Return files from the cache; they are made on first use, and again if one is damaged.

    Their checksums are kept next to them.

    Args:
        files: all in one folder.
        make: writes them into another folder, given the new path of the first.

    Returns:
        The first of the files.

    Raises:
        UserError: they cannot be written.
    """
    sums = files[0].with_name(f"{files[0].name}.crc32")
    if not sums.is_file() or read_file(sums) != _checksums(files):
        with new_files(files) as parts:
            make(parts[0])
        write_file(sums, _checksums(files))
    return files[0]


def _checksums(files: Sequence[Path]) -> bytes:
    lines = [f"{zlib.crc32(read_file(file)):08x}\n" for file in files if file.is_file()]
    return "".join(lines).encode()


def _writable(folder: Path) -> Path:
    """Return the folder, created if missing, or the system's temporary one if not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def choose_device(backend: str, device: str) -> torch.device:
    """Return the device that a backend runs on.

    Args:
        backend: one of `BACKENDS`, or "auto".
        device: `config.device`.

    Raises:
        UserError: there is no such device or backend, the backend does not run on the device, or
            its package is missing.
    """
    if backend not in (*BACKENDS, "auto"):
        raise UserError(f"backend={backend}: unknown{nearest(backend, [*BACKENDS, 'auto'])}")
    if backend in (*TORCH_BACKENDS, "auto"):
        return pick_device(device)
    chosen = pick_device("cpu" if device == "auto" else device)
    package = require_package(PACKAGES.get(backend, backend), f"backend={backend}")
    if backend == "onnxruntime" and "CUDAExecutionProvider" in package.get_available_providers():
        return pick_device(device)
    if chosen.type != "cpu":
        hint = ""
        if backend == "onnxruntime" and chosen.type == "cuda":
            hint = "; pip install onnxruntime-gpu"
        raise UserError(
            f"device={device}: backend={backend} runs on the CPU here; use device=cpu{hint}"
        )
    return chosen


def choose_precision(backend: str, precision: str, device: torch.device) -> str:
    """Return the precision that a backend computes in; auto: bf16 if it is native, else fp32.

    Args:
        backend: one of `BACKENDS`, or "auto".
        precision: `config.precision`.
        device: what `choose_device` returned.

    Raises:
        UserError: the backend does not support the precision.
    """
    if backend == "auto":
        offered = tuple(dict.fromkeys(p for precisions in BACKENDS.values() for p in precisions))
    else:
        offered = BACKENDS[backend]
    if precision == "auto":
        native = pick_precision("auto", device)
        return native if native in offered else "fp32"
    if precision not in offered:
        able = ", ".join(name for name, precisions in BACKENDS.items() if precision in precisions)
        raise UserError(
            f"precision={precision}: backend={backend} computes in {', '.join(offered)}; "
            f"{precision}: backend={able}"
        )
    return pick_precision(precision, device)
