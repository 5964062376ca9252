"""Exported files, each verified after writing; implements `export.py`."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from nets.inference.backends import Backend
from nets.inference.detector import Detector
from nets.io.darknet import write_darknet
from nets.io.darknet_cfg import darknet_cfg
from nets.io.downloads import is_download
from nets.io.onnx import write_onnx
from nets.loading import load_model
from utils.core.errors import UserError
from utils.core.files import claimed_outputs, write_file
from utils.engine.detectors import open_detector
from utils.engine.runs import find_weights

COMPANIONS = (".cfg", ".names")  # of Darknet weights
SUFFIXES = {"onnx": ".onnx", "darknet": ".weights"}
# largest differences that a different order of float32 summation can cause
MAX_BOX_DIFFERENCE = 0.05  # pixels
MAX_SCORE_DIFFERENCE = 1e-4


def export(
    weights: str | None, kind: str, out: str | None = None, opset: int | None = None
) -> list[str]:
    """Export a detector.

    Args:
        weights: file or run; None: the newest run.
        kind: "onnx", or "darknet": `.weights`, `.cfg` and `.names` for Darknet and OpenCV 4.
        out: the file to write; None: next to the weights, or here if they were downloaded, with the
            format's suffix.
        opset: ONNX operator set version; None: the exporter's default.

    Returns:
        Lines that state what was written and how closely it agrees with the detector.

    Raises:
        UserError: the weights do not exist or cannot be exported, or the file cannot be written.
    """
    source = find_weights(weights)
    if source.suffix == ".onnx":
        raise UserError(
            f"--weights {source}: an ONNX file is already exported; expected .pt, .pth or .weights"
        )
    if opset is not None and kind != "onnx":
        raise UserError(f"--opset {opset}: only for --format onnx")
    beside = Path(source.name) if is_download(source) else source
    path = Path(out) if out else beside.with_suffix(SUFFIXES[kind])
    if path.suffix != SUFFIXES[kind]:
        raise UserError(
            f"--out {out}: expected a file name that ends in {SUFFIXES[kind]}, which tells other "
            "programs the format"
        )
    files = [path]
    if kind == "darknet":
        files += [path.with_suffix(suffix) for suffix in COMPANIONS]
    with claimed_outputs(*(("--out", file) for file in files)):
        detector = open_detector(source, backend="torch", device="cpu", precision="fp32")
        if kind == "onnx":
            return _export_onnx(detector, path, opset)
        return _export_darknet(detector, path)


def _export_onnx(detector: Detector, path: Path, opset: int | None) -> list[str]:
    write_onnx(detector.network, detector.config, detector.names, path, opset)
    height, width = detector.input_size
    lines = [
        f"written: {path} ({_megabytes(path)})",
        f"  input images (N, 3, {height}, {width}) float32, RGB, 0..1; outputs boxes (N, A, 4) and "
        f"scores (N, A, {len(detector.names)}); NMS is left to the caller",
    ]
    if not importlib.util.find_spec("onnxruntime"):
        return [*lines, "  not verified: pip install onnxruntime"]
    exported = load_model(path, backend="onnxruntime", device="cpu")
    return [*lines, f"  verified with ONNX Runtime: {_compare(detector, exported.backend)}"]


def _export_darknet(detector: Detector, path: Path) -> list[str]:
    write_darknet(detector.network, path)
    cfg, names = (path.with_suffix(suffix) for suffix in COMPANIONS)
    write_file(cfg, darknet_cfg(detector.network, detector.input_size))
    write_file(names, "".join(f"{name}\n" for name in detector.names))
    exported = load_model(path, device="cpu", precision="fp32", backend="torch")
    return [
        f"written: {path} ({_megabytes(path)}), {cfg}, {names}",
        f"  verified by reading back: {_compare(detector, exported.backend)}",
    ]


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MB"


def _compare(detector: Detector, exported: Backend) -> str:
    """The largest differences between the detector and its exported file, on two random images.

    Raises:
        UserError: the differences exceed rounding error.
    """
    canvases = torch.randint(0, 256, (2, *detector.input_size, 3), dtype=torch.uint8)
    boxes, scores = detector.backend(canvases)
    detector.model_spec.check_outputs(boxes, scores)
    exported_boxes, exported_scores = exported(canvases)
    box = _max_difference(boxes, exported_boxes)
    score = _max_difference(scores, exported_scores)
    # NaN fails both comparisons
    if not (box <= MAX_BOX_DIFFERENCE and score <= MAX_SCORE_DIFFERENCE):
        raise UserError(
            "the exported file gives different results: "
            f"boxes differ by {box:.3g} px, scores by {score:.3g}"
        )
    return f"largest difference {box:.2g} px in boxes, {score:.2g} in scores"


def _max_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
