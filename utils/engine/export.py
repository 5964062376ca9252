"""The logic of `export.py`: weights in, files for other programs out, each checked after writing."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nets.inference.backends import Backend
from nets.inference.detector import Detector
from nets.io.darknet_cfg import darknet_cfg
from nets.io.onnx import write_onnx
from nets.io.darknet import write_darknet
from nets.loading import load_model
from utils.core.errors import UserError
from utils.engine.runs import find_weights

SUFFIXES = {"onnx": ".onnx", "darknet": ".weights"}
WORST_BOX, WORST_SCORE = 0.05, 1e-4  # pixels; what float32 in another order of summation may change


def export(
    weights: str | None, kind: str, out: str | None = None, opset: int | None = None
) -> list[str]:
    """Export a detector.

    Args:
        weights: file or run; none: the newest run's `best.pt`.
        kind: "onnx", or "darknet" for `.weights`, `.cfg` and `.names` that Darknet and OpenCV 4 read.
        out: the file to write; none: beside the weights, with the format's suffix.
        opset: ONNX's operator set; none: the exporter's own.

    Returns:
        Lines that say what was written and how far it agrees.

    Raises:
        UserError: no such weights, nothing to export in them, or the file cannot be written.
    """
    source = find_weights(weights)
    if source.suffix == ".onnx":
        raise UserError(
            f"--weights {source}: an ONNX file is exported already; expected .pt, .pth or .weights"
        )
    if opset is not None and kind != "onnx":
        raise UserError(f"--opset {opset}: only for --format onnx")
    detector = load_model(source, backend="torch", device="cpu", precision="fp32")
    path = Path(out) if out else source.with_suffix(SUFFIXES[kind])
    if path.resolve() == source.resolve():
        raise UserError(f"--out {path}: would replace the weights themselves; give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _onnx(detector, path, opset) if kind == "onnx" else _darknet(detector, path)
    except OSError as error:
        raise UserError(f"--out {path}: cannot write: {error.strerror or error}") from None


def _onnx(detector: Detector, path: Path, opset: int | None) -> list[str]:
    write_onnx(detector.network, detector.config, detector.names, path, opset)
    height, width = detector.input_size
    return [
        f"written: {path} ({path.stat().st_size / 2**20:.1f} MB)",
        f"  input images (N, 3, {height}, {width}) float32, RGB, 0..1; outputs boxes (N, A, 4) and scores "
        f"(N, A, {len(detector.names)}); NMS is left to the caller",
        _verified(detector, path),
    ]


def _verified(detector: Detector, path: Path) -> str:
    """Compare ONNX Runtime with PyTorch on two random pictures."""
    if not importlib.util.find_spec("onnxruntime"):
        return "  not verified: pip install onnxruntime"
    backend = load_model(path, backend="onnxruntime", device="cpu").backend
    canvases = torch.randint(0, 256, (2, *detector.input_size, 3), dtype=torch.uint8)
    box, score = _differences(detector.backend, backend, canvases)
    return f"  verified with ONNX Runtime: largest difference {box:.2g} px in boxes, {score:.2g} in scores"


def _darknet(detector: Detector, path: Path) -> list[str]:
    write_darknet(detector.network, path)
    texts: dict[str, Callable[[], str]] = {
        ".cfg": lambda: darknet_cfg(detector.network, detector.input_size),
        ".names": lambda: "".join(f"{name}\n" for name in detector.names),
    }
    for suffix, text in texts.items():
        path.with_suffix(suffix).write_text(text(), encoding="utf-8")
    back = load_model(path, device="cpu", precision="fp32", backend="torch")
    canvases = torch.randint(0, 256, (1, *detector.input_size, 3), dtype=torch.uint8)
    box, score = _differences(detector.backend, back.backend, canvases)
    others = ", ".join(str(path.with_suffix(suffix)) for suffix in texts)
    return [
        f"written: {path} ({path.stat().st_size / 2**20:.1f} MB), {others}",
        f"  verified by reading back: largest difference {box:.2g} px in boxes, {score:.2g} in scores",
    ]


def _differences(first: Backend, second: Backend, canvases: Tensor) -> tuple[float, float]:
    """The largest difference in boxes, pixels, and in scores.

    Raises:
        UserError: it is more than rounding.
    """
    box, score = (
        float((a - b).abs().max()) for a, b in zip(first(canvases), second(canvases), strict=True)
    )
    if not (box <= WORST_BOX and score <= WORST_SCORE):
        raise UserError(
            f"the exported file gives other results: boxes differ by {box:.3g} px, scores by {score:.3g}"
        )
    return box, score
