"""Opening the detector of a command: weights, process settings, int8 calibration."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nets.inference.detector import Detector
from nets.loading import load_model
from utils.core.class_names import read_class_names
from utils.core.errors import UserError, shorten
from utils.core.process import configure_process
from utils.core.schema import Config
from utils.data.layout import resolve
from utils.data.loading import load_dataset

CALIBRATION_IMAGES = 300


def open_detector(
    path: str | Path, changes: Mapping[str, Any] | None = None, **values: Any
) -> Detector:
    """Load a detector and configure the process for it.

    If the detector computes in int8, it is calibrated on training images of `data`.

    Args:
        path: weights file or folder of a run.
        changes: dotted key to value, for the weights' own configuration.
        values: the same for top-level keys; None leaves the weights' own.

    Raises:
        UserError: the file cannot be read as weights, or a change does not fit them.
    """
    detector = load_model(path, changes, **values)
    configure_process(detector.config.threads)
    detector.model_spec.calibration = partial(calibration_images, detector.config, detector.names)
    return detector


def calibration_images(
    config: Config, names: tuple[str, ...], count: int = CALIBRATION_IMAGES
) -> np.ndarray:
    """Return up to `count` training images, evenly spread, letterboxed and without augmentation.

    Returns:
        uint8 `(n, H, W, 3)`.

    Raises:
        UserError: the dataset is missing.
    """
    dataset = load_dataset(config.data, "train", config.input_size, names, progress=False)
    count = min(count, len(dataset))
    return dataset.canvases([index * len(dataset) // count for index in range(count)])


def check_class_names(detector: Detector, changes: Mapping[str, Any], by_hand: bool = True) -> None:
    """Refuse a list of other classes than the network's, which would be ignored.

    Args:
        detector: the network.
        changes: dotted key to value.
        by_hand: whether they come from the command line. The list of an experiment matters only if
            labels are numbers: other formats name the class of each object.

    Raises:
        UserError: `data.classes` are others, or the data is missing.
    """
    names = changes.get("data.classes")
    if names is None or read_class_names(names) == detector.names:
        return
    if by_hand or resolve(detector.config.data)[0].format == "yolo":
        raise UserError(
            f"data.classes: expected those of the network, {shorten(', '.join(detector.names))}; "
            "they are used without data.classes"
        )


def validation_canvases(detector: Detector, count: int) -> tuple[Tensor, str]:
    """Return images to try a detector on.

    Returns:
        uint8 `(count, H, W, 3)`: validation images of the detector's dataset if it is at hand, else
        noise; and which of the two, for messages.
    """
    config = detector.config
    # draws no more images than needed
    data = config.data.model_copy(update={"shapes_val": count})
    try:
        dataset = load_dataset(data, "val", config.input_size, detector.names, progress=False)
    except UserError:
        size = (count, *config.input_size, 3)
        return torch.randint(0, 256, size, dtype=torch.uint8), "random images"
    indices = [index % len(dataset) for index in range(count)]
    return torch.from_numpy(dataset.canvases(indices)), "validation images"


def describe(detector: Detector) -> str:
    """Return one line about a detector, for the terminal."""
    height, width = detector.input_size
    return (
        f"{len(detector.names)} classes, phi {detector.config.phi}, {width}x{height}, "
        f"{detector.device}, {detector.precision}"
    )
