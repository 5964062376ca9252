"""Exported files, each checked before it appears; implements `export.py`."""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from nets.inference.backends import Backend
from nets.inference.backends.int8 import quantize_file
from nets.inference.detector import Detector
from nets.io.darknet import write_darknet
from nets.io.darknet_cfg import darknet_cfg
from nets.io.downloads import is_download
from nets.io.formats import FORMATS, Format
from nets.io.onnx import RUNTIMES
from nets.loading import load_model
from nets.ops.nms import non_max_suppression
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError
from utils.core.file_groups import new_files
from utils.core.inputs import is_file
from utils.core.outputs import claimed_outputs, write_file
from utils.core.schema import Config
from utils.engine.datasets import open_dataset
from utils.engine.detectors import calibration_images, open_detector, validation_canvases
from utils.engine.evaluation import evaluate_detector
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
    "half": ("onnx", "openvino", "ncnn"),
    "int8": ("openvino",),
    "nms": ("onnx",),
}
CHANGEABLE = ("data", "predict")  # sections of the configuration
DYNAMIC = "dynamic"  # batch
ANY_BATCH = ("onnx", "openvino", "torchscript")  # formats of any number of images per call
IMAGES = 2  # to compare on
RUNTIME_TITLES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "ncnn": "ncnn",
}


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that are only rounding.

    Attributes:
        box: pixels.
        score: 0..1.
    """

    box: float
    score: float

    def check(self, box: float, score: float) -> str:
        """Return differences as text.

        Raises:
            UserError: they are larger.
        """
        # NaN fails both comparisons
        if not (box <= self.box and score <= self.score):
            raise UserError(
                "the exported file gives different results, and was removed: "
                f"boxes differ by {box:.3g} px, scores by {score:.3g}"
            )
        return f"largest difference {box:.2g} px in boxes, {score:.2g} in scores"


FLOAT32 = Tolerance(0.05, 1e-4)  # a different order of summation
HALF = Tolerance(1.0, 0.01)  # weights of 11 bits: 0.1 px and 0.001 on a network of 416 px


def _write_darknet(network: YOLOv4Tiny, config: Config, names: Sequence[str], path: Path) -> None:
    write_darknet(network, path)
    write_file(path.with_suffix(".cfg"), darknet_cfg(network, config.input_size))
    write_file(path.with_suffix(".names"), "".join(f"{name}\n" for name in names))


DARKNET = Format("Darknet weights", _write_darknet, (".cfg", ".names"))


@dataclass(frozen=True)
class ExportOptions:
    """What can be asked of a format; `OPTIONS` says which has what.

    Attributes:
        opset: ONNX operator set version; None: the exporter's default.
        batch: number of images per call, or "dynamic" for any; None: any, where the format allows
            it, else 1.
        half: store the weights as float16.
        int8: quantize the convolutions, calibrated on training images.
        nms: end with NMS, by the limits of `predict` in the configuration.
    """

    opset: int | None = None
    batch: int | str | None = None
    half: bool = False
    int8: bool = False
    nms: bool = False


def export(
    weights: str | None,
    kind: str,
    out: str | None = None,
    options: ExportOptions | None = None,
    size: Sequence[int] | None = None,
    cfg: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[str]:
    """Export a detector.

    Args:
        weights: file or run; None: the newest run.
        kind: one of `SUFFIXES`; "darknet" is for Darknet and OpenCV 4.
        out: the file to write; None: next to the weights, or here if they were downloaded, with the
            format's suffix.
        options: of the format; None: its defaults.
        size: (height, width) of the input, or one number for both, in pixels; None: that of the
            weights.
        cfg: the `.cfg` of Darknet weights; None: the one next to them, if any.
        changes: dotted key to value, for the weights' `data` (where the images for int8 and the
            comparison are) and `predict` (the limits that the file states).

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
    options = options or ExportOptions()
    arguments = _applicable(kind, options)
    changes = {**_checked(changes or {}), **_sides(size)}
    path = _output(source, kind, out)
    file_format = FORMATS.get(path.suffix, DARKNET)
    files = file_format.files(path)
    with claimed_outputs(*(("--out", file) for file in files)):
        detector = open_detector(
            source, changes, cfg=cfg, backend="torch", device="cpu", precision="fp32"
        )
        with new_files(files) as parts:
            _write(file_format, detector, parts[0], arguments)
            lines = [*_interface(detector, kind, options), _check(detector, parts[0], options)]
    sizes = ", ".join(f"{file} ({_megabytes(file)})" for file in files)
    return [f"written: {sizes}", *(f"  {line}" for line in lines)]


def _checked(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse changes that an export would ignore, or that are options of it."""
    for key in changes:
        if key.split(".")[0] not in CHANGEABLE:
            raise UserError(f"{key}: expected a key of {' or '.join(CHANGEABLE)}; see --help")
    return changes


def _sides(size: Sequence[int] | None) -> dict[str, Any]:
    if size is None:
        return {}
    if len(size) > 2:
        raise UserError(f"--size: {len(size)} numbers, expected one, or height and width")
    return {"input_size": list(size) * (3 - len(size))}


def _applicable(kind: str, options: ExportOptions) -> dict[str, Any]:
    """The options that differ from a format's defaults, by name.

    Raises:
        UserError: the format does not have one of them.
    """
    given = {name: value for name, value in asdict(options).items() if value not in (None, False)}
    for name, value in given.items():
        formats = ANY_BATCH if value == DYNAMIC else OPTIONS[name]
        if kind not in formats:
            written = name if value is True else f"{name} {value}"
            raise UserError(f"--{written}: only for --format {', '.join(formats)}")
    return {name: value for name, value in given.items() if value != DYNAMIC}


def _write(
    file_format: Format, detector: Detector, path: Path, arguments: Mapping[str, Any]
) -> None:
    """Write all files of an export."""
    content = (detector.network, detector.config, detector.names)
    if "int8" not in arguments:
        file_format.write(*content, path, **arguments)
        return
    canvases = calibration_images(detector.config, detector.names)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        exact = Path(folder) / f"exact{path.suffix}"
        file_format.write(*content, exact)
        quantize_file(exact, path, canvases, arguments.get("batch"))


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


def _interface(detector: Detector, kind: str, options: ExportOptions) -> list[str]:
    """What a program that runs the file must know."""
    if kind == "darknet":
        return []
    height, width = detector.input_size
    batch = {"ncnn": "", "tflite": f"{options.batch or 1}, "}.get(kind, "N, ")
    if isinstance(options.batch, int):
        batch = f"{options.batch}, "
    sides = f"{height}, {width}, 3" if kind == "tflite" else f"3, {height}, {width}"
    classes = len(detector.names)
    outputs = f"boxes ({batch}A, 4) and scores ({batch}A, {classes}); NMS is left to the caller"
    if options.nms:
        limits = detector.config.predict
        outputs = (
            f"detections ({batch}K, 6): x1, y1, x2, y2, score, class after NMS, without box voting "
            f"(score over {limits.score:g}, IoU up to {limits.nms_iou:g})"
        )
    return [f"input images ({batch}{sides}) float32, RGB, 0..1; outputs {outputs}"]


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MB"


def _check(detector: Detector, path: Path, options: ExportOptions) -> str:
    """Compare a file with the detector that it was written from; say how, and the result.

    Raises:
        UserError: it gives different results.
    """
    if path.suffix == ".onnx" and not any(map(importlib.util.find_spec, RUNTIMES)):
        return "not verified: pip install onnxruntime"
    if options.int8:
        return _ap_lost(detector, load_model(path, device="cpu"))
    exported = load_model(path, device="cpu", precision="fp32")
    canvases, origin = validation_canvases(detector, IMAGES)
    limits = HALF if options.half else FLOAT32
    if options.nms:
        differences = _compare_detections(detector, exported, canvases, limits)
    else:
        differences = _compare(detector, exported.backend, canvases, limits)
    title = RUNTIME_TITLES[exported.backend.name]
    return f"verified with {title} on {origin}: {differences}"


def _ap_lost(detector: Detector, exported: Detector) -> str:
    """What the file's precision costs on the validation split."""
    dataset = open_dataset(detector.config, "val", detector.names)
    before, after = (
        100 * evaluate_detector(one, dataset).metrics.map50_95 for one in (detector, exported)
    )
    lost = f"{before - after:+.2f} AP lost"
    return f"verified on the validation split: AP {after:.2f}, {before:.2f} before: {lost}"


def _compare(detector: Detector, exported: Backend, canvases: Tensor, limits: Tolerance) -> str:
    """The largest differences between the detector and its exported file.

    Raises:
        UserError: the differences exceed rounding error.
    """
    boxes, scores = detector.backend(canvases)
    detector.model_spec.check_outputs(boxes, scores)
    exported_boxes, exported_scores = exported(canvases)
    return limits.check(
        _max_difference(boxes, exported_boxes), _max_difference(scores, exported_scores)
    )


def _compare_detections(
    detector: Detector, exported: Detector, canvases: Tensor, limits: Tolerance
) -> str:
    """`_compare` for a file that ends with NMS."""
    limit = detector.config.predict
    suppress = partial(
        non_max_suppression,
        score=limit.score,
        nms_iou=limit.nms_iou,
        max_detections=limit.max_detections,
    )
    wanted, found = suppress(*detector.backend(canvases)), suppress(*exported.backend(canvases))
    box = score = 0.0
    for one, other in zip(wanted, found, strict=True):
        if one.labels.tolist() != other.labels.tolist():
            raise UserError(
                "the exported file gives different results, and was removed: "
                f"{len(other.labels)} detections, expected {len(one.labels)}"
            )
        if len(one.labels):
            box = max(box, _max_difference(one.boxes, other.boxes))
            score = max(score, _max_difference(one.scores, other.scores))
    count = sum(len(one.labels) for one in wanted)
    return f"{count} detections, {limits.check(box, score)}"


def _max_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
