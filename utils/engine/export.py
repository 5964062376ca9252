"""Exported files, each checked before it appears; implements `export.py`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nets.inference.backends import Backend
from nets.inference.detector import Detector
from nets.io.darknet import write_darknet
from nets.io.darknet_cfg import darknet_cfg
from nets.io.downloads import is_download
from nets.io.formats import FORMATS, Format
from nets.io.onnx import RUNTIMES
from nets.loading import load_model
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError
from utils.core.files import claimed_outputs, is_file, new_files, write_file
from utils.core.schema import Config
from utils.engine.detectors import open_detector, validation_canvases
from utils.engine.runs import find_weights

SUFFIXES = {  # of the file that is written by default
    "onnx": ".onnx",
    "openvino": ".xml",
    "ncnn": ".ncnn.param",
    "tflite": ".tflite",
    "torchscript": ".torchscript",
    "darknet": ".weights",
}
OPTIONS = {  # option: the formats that have it
    "opset": ("onnx",),
    "batch": ("onnx", "openvino", "tflite"),
}
DYNAMIC = "dynamic"  # batch
ANY_BATCH = ("onnx", "openvino", "torchscript")  # formats of any number of images per call
# largest differences that a different order of float32 summation can cause
MAX_BOX_DIFFERENCE = 0.05  # pixels
MAX_SCORE_DIFFERENCE = 1e-4
IMAGES = 2  # to compare on
RUNTIME_TITLES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "ncnn": "ncnn",
}


def _write_darknet(network: YOLOv4Tiny, config: Config, names: Sequence[str], path: Path) -> None:
    write_darknet(network, path)
    write_file(path.with_suffix(".cfg"), darknet_cfg(network, config.input_size))
    write_file(path.with_suffix(".names"), "".join(f"{name}\n" for name in names))


DARKNET = Format("Darknet weights", _write_darknet, (".cfg", ".names"))


def export(
    weights: str | None,
    kind: str,
    out: str | None = None,
    opset: int | None = None,
    batch: int | str | None = None,
    size: Sequence[int] | None = None,
) -> list[str]:
    """Export a detector.

    Args:
        weights: file or run; None: the newest run.
        kind: one of `SUFFIXES`; "darknet" is for Darknet and OpenCV 4.
        out: the file to write; None: next to the weights, or here if they were downloaded, with the
            format's suffix.
        opset: ONNX operator set version; None: the exporter's default.
        batch: number of images per call, or "dynamic" for any; None: any, where the format allows
            it, else 1.
        size: (height, width) of the input, pixels; None: that of the weights.

    Returns:
        Lines that state what was written and how closely it agrees with the detector.

    Raises:
        UserError: the weights do not exist or cannot be exported, an option does not apply to the
            format, the file cannot be written, or it gives other results.
    """
    source = find_weights(weights)
    if source.suffix in FORMATS:
        raise UserError(
            f"--weights {source}: {FORMATS[source.suffix].title} is already exported; expected "
            ".pt, .pth or .weights"
        )
    options = _applicable(kind, {"opset": opset, "batch": batch})
    path = _output(source, kind, out)
    file_format = FORMATS.get(path.suffix, DARKNET)
    files = file_format.files(path)
    with claimed_outputs(*(("--out", file) for file in files)):
        detector = open_detector(
            source, backend="torch", device="cpu", precision="fp32", input_size=size
        )
        with new_files(files) as parts:
            file_format.write(
                detector.network, detector.config, detector.names, parts[0], **options
            )
            check = _check(detector, parts[0])
    sizes = ", ".join(f"{file} ({_megabytes(file)})" for file in files)
    return [f"written: {sizes}", *_interface(detector, kind), f"  {check}"]


def _applicable(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given.

    Raises:
        UserError: the format does not have one of them.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        formats = ANY_BATCH if value == DYNAMIC else OPTIONS[name]
        if kind not in formats:
            raise UserError(f"--{name} {value}: only for --format {', '.join(formats)}")
    return {name: value for name, value in given.items() if value != DYNAMIC}


def _output(source: Path, kind: str, out: str | None) -> Path:
    """The file to write."""
    beside = Path(source.name) if is_download(source) else source
    default = beside.with_suffix(SUFFIXES[kind])
    path = Path(out) if out else default
    if path.suffix != default.suffix:
        raise UserError(
            f"--out {out}: expected a file name that ends in {default.suffix}, which tells other "
            "programs the format"
        )
    for suffix, other in FORMATS.items():
        shared = set(other.companions) & set(FORMATS.get(path.suffix, DARKNET).companions)
        taken = path.with_suffix(suffix)
        if suffix != path.suffix and shared and is_file(taken):
            raise UserError(
                f"--out {path}: {path.with_suffix(min(shared))} belongs to {taken}: give another "
                "name"
            )
    return path


def _interface(detector: Detector, kind: str) -> list[str]:
    """What a program that runs the file must know."""
    height, width = detector.input_size
    classes = len(detector.names)
    images = {
        "tflite": f"(N, {height}, {width}, 3)",
        "ncnn": f"(3, {height}, {width})",
    }.get(kind, f"(N, 3, {height}, {width})")
    batch = "" if kind == "ncnn" else "N, "
    if kind == "darknet":
        return []
    return [
        f"  input images {images} float32, RGB, 0..1; outputs boxes ({batch}A, 4) and scores "
        f"({batch}A, {classes}); NMS is left to the caller"
    ]


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MB"


def _check(detector: Detector, path: Path) -> str:
    """Compare a file with the detector that it was written from; say how, and the result.

    Raises:
        UserError: it gives different results.
    """
    if path.suffix == ".onnx" and not any(map(importlib.util.find_spec, RUNTIMES)):
        return "not verified: pip install onnxruntime"
    exported = load_model(path, device="cpu", precision="fp32")
    canvases, origin = validation_canvases(detector, IMAGES)
    differences = _compare(detector, exported.backend, canvases)
    title = RUNTIME_TITLES[exported.backend.name]
    return f"verified with {title} on {origin}: {differences}"


def _compare(detector: Detector, exported: Backend, canvases: Tensor) -> str:
    """The largest differences between the detector and its exported file.

    Raises:
        UserError: the differences exceed rounding error.
    """
    boxes, scores = detector.backend(canvases)
    detector.model_spec.check_outputs(boxes, scores)
    exported_boxes, exported_scores = exported(canvases)
    box = _max_difference(boxes, exported_boxes)
    score = _max_difference(scores, exported_scores)
    # NaN fails both comparisons
    if not (box <= MAX_BOX_DIFFERENCE and score <= MAX_SCORE_DIFFERENCE):
        raise UserError(
            "the exported file gives different results, and was removed: "
            f"boxes differ by {box:.3g} px, scores by {score:.3g}"
        )
    return f"largest difference {box:.2g} px in boxes, {score:.2g} in scores"


def _max_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
