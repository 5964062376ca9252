"""A detector that finds images to calibrate int8 on by itself: some of those it was trained on."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detector import Detector
from nets.loading import load_model
from utils.core.process import configure_process
from utils.core.schema import Config
from utils.data.loading import load_dataset

PICTURES = 300


def open_detector(
    path: str | Path, changes: Mapping[str, Any] | None = None, **values: Any
) -> Detector:
    """`nets.load_model`, for command lines: int8 is calibrated on the training split of the detector's dataset."""
    detector = load_model(path, changes, **values)
    configure_process(detector.config.threads)
    detector.model_spec.calibration = partial(training_canvases, detector.config, detector.names)
    return detector


def training_canvases(config: Config, names: tuple[str, ...], count: int = PICTURES) -> np.ndarray:
    """Up to `count` training images, evenly spread, as the network sees them without augmentation.

    Returns:
        uint8 `(n, H, W, 3)`.

    Raises:
        UserError: the dataset is not there.
    """
    dataset = load_dataset(config.data, "train", config.input_size, names, progress=False)
    count = min(count, len(dataset))
    return dataset.canvases([index * len(dataset) // count for index in range(count)])
