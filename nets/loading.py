"""Loading a detector from a weights file or a run's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nets.inference.detector import Detector
from nets.io import checkpoints, darknet, reference
from nets.io.downloads import locate_weights
from nets.io.formats import FORMATS
from nets.io.onnx import find_runtime
from nets.io.tensors import does_not_fit, load_tensors
from nets.io.weights import WeightsFile, load_weights, read_weights, refuse_cfg
from nets.yolo.yolov4_tiny import build_model
from utils.core.class_names import default_class_names, read_class_names
from utils.core.config import restore_config, update_config
from utils.core.errors import UserError, shorten
from utils.core.inputs import check_input
from utils.core.overrides import as_words, plain_values
from utils.core.schema import Config

BEST = "best.pt"
STRUCTURE = ("phi", "attention", "model")  # what decides which tensors a network has


def load_model(
    path: str | Path, changes: Mapping[str, Any] | None = None, **values: Any
) -> Detector:
    """Load a detector.

    Args:
        path: a checkpoint of this project, a run's folder (its `best.pt`), a file that
            `export.py` wrote (`FORMATS`), a Darknet `.weights` file, or a `.pth` of the reference
            implementation; or the address of such a file, perhaps with `#sha256=`, or the name of
            public weights, such as `yolov4-tiny.weights`, which are then downloaded once.
        changes: changes to the saved configuration, dotted key to value, e.g.
            `{"eval.nms_iou": 0.5}`.
        **values: changes to top-level keys, e.g. `device="cpu"`, `precision="fp32"`,
            `input_size=608`; None keeps the saved value. `cfg=FILE` is the description of Darknet
            weights, if it does not lie next to them.

    A file that ends with NMS keeps the limits of its export (`predict.score`, `predict.nms_iou`,
    `predict.max_detections`), in evaluations, too; they can only be made stricter.

    Returns:
        A `Detector`: call it with an image or a list of images.

    Raises:
        UserError: the file is missing, cannot be downloaded, or is not a weights file; or a change
            does not fit it.
    """
    path = locate_weights(path)
    given = {key: value for key, value in values.items() if value is not None}
    changes = plain_values({**(changes or {}), **given})
    if path.is_dir():
        path = path / BEST
    check_input(path)
    cfg = changes.get("cfg")
    if path.suffix in (*FORMATS, ".pt"):
        refuse_cfg(path, cfg)
    if path.suffix in FORMATS:
        return _load_exported(path, changes)
    if path.suffix == ".pt":
        return _load_checkpoint(path, checkpoints.load(path), changes)
    weights = read_weights(path, cfg)
    if weights.checkpoint is not None:
        return _load_checkpoint(path, weights.checkpoint, changes)
    return _load_foreign(weights, changes)


def _load_checkpoint(path: Path, saved: Mapping[str, Any], changes: Mapping[str, Any]) -> Detector:
    config = update_config(restore_config(saved["config"], f"{path}: config"), changes)
    wanted_by = _wanted_by(changes)
    network = checkpoints.build_network(saved, config, path, wanted_by)
    load_tensors(network, saved["model"], str(path), wanted_by)
    return Detector(network, config, saved["names"], weights=path)


def _wanted_by(changes: Mapping[str, Any]) -> str:
    """What asks for the network, for error messages."""
    structural = {key: value for key, value in changes.items() if key.split(".")[0] in STRUCTURE}
    return as_words(structural) or "its configuration"


def _load_exported(path: Path, changes: Mapping[str, Any]) -> Detector:
    """Load an exported file: its network is fixed, but limits, backend and device can change.

    The limits of a file that ends with NMS can become stricter; those of the export count always.
    """
    file_format = FORMATS[path.suffix]
    for file in file_format.files(path):
        check_input(file)
    saved = file_format.read(path)
    backend = find_runtime(path) if path.suffix == ".onnx" else file_format.backends[0]
    precision = "fp32" if backend == "torch" else saved.precision or "auto"
    here: dict[str, Any] = {"backend": backend, "device": "auto", "precision": precision}
    if saved.has_nms:  # without voting
        here |= {"predict.vote_iou": 1.0, "eval.vote_iou": 1.0}
    config = update_config(saved.config, {**here, **changes})
    fixed = {key: getattr(saved.config, key) for key in ("input_size", *STRUCTURE)}
    if saved.precision:
        fixed["precision"] = saved.precision
    for key, value in fixed.items():
        if getattr(config, key) != value:
            raise UserError(
                f"{path}: {key} is fixed in {file_format.title} ({value}); "
                "export the model again to change it"
            )
    if saved.has_nms:
        _check_limits(path, config, saved.config)
    network = checkpoints.build_shapes(config, len(saved.names), saved.anchors)
    return Detector(network, config, saved.names, exported=saved)


def _check_limits(path: Path, config: Config, saved: Config) -> None:
    """Refuse changed limits that would keep what the NMS in a file has already removed."""
    for section in ("predict", "eval"):
        for key in ("score", "nms_iou", "max_detections"):
            value = getattr(getattr(config, section), key)
            baked = getattr(saved.predict, key)
            looser = value < baked if key == "score" else value > baked
            if looser and value != getattr(getattr(saved, section), key):
                bound = "lower" if key == "score" else "higher"
                raise UserError(
                    f"{path}: {section}.{key}={value}: the file ends with NMS by its own limits, "
                    f"predict.{key}={baked}, and cannot apply a {bound} one; export it again"
                )


def _load_foreign(weights: WeightsFile, changes: Mapping[str, Any]) -> Detector:
    """Load weights that another program wrote.

    The configuration is derived from the tensors, the files next to them (Darknet's `.cfg` and
    `.names`) and the conventions of that program. For a `.pth`, `data.classes` names the classes if
    it has as many.
    """
    path, num_classes = weights.path, weights.num_classes
    if num_classes is None or weights.model_config is None:
        raise UserError(
            f"{path}: holds no detection heads (backbone only); use it for training: weights={path}"
        )
    phi = reference.find_phi(weights.tensors)
    names = default_class_names(num_classes)
    config = Config(name=path.stem, phi=phi, model=weights.model_config)
    if weights.is_darknet:
        names = darknet.read_names([path, weights.cfg or path], num_classes)
        if weights.description:
            config = update_config(config, {"input_size": weights.description.input_size})
    config = update_config(config, changes)
    given = None if weights.is_darknet else read_class_names(changes.get("data.classes"))
    if given is not None and len(given) == num_classes:
        names = list(given)
    network = build_model(config, num_classes)
    report = load_weights(network, weights)
    differences = [
        *report.mismatched,
        *(f"{name} is missing" for name in report.missing),
        *(f"unknown tensor {shorten(name)}" for name in report.unexpected),
    ]
    if differences:
        raise does_not_fit(str(path), _wanted_by(changes), differences[0])
    return Detector(network, config, names, weights=path)
