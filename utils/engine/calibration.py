"""A detector that finds images to calibrate int8 on by itself: some of those it was trained on."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detector import Detector
from nets.loading import load_model
from utils.core.schema import Config
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset

PICTURES = 300


def open_detector(path: str | Path, *overrides: str, **values: Any) -> Detector:
    """`nets.load_model`, for command lines: int8 is calibrated on the training split of the detector's dataset."""
    detector = load_model(path, *overrides, **values)
    detector.source.calibration = partial(training_canvases, detector.config, detector.names)
    return detector


def training_canvases(config: Config, names: tuple[str, ...], count: int = PICTURES) -> np.ndarray:
    """Up to `count` training images, evenly spread, as the network sees them without augmentation.

    Returns:
        uint8 `(n, H, W, 3)`.

    Raises:
        UserError: the dataset is not there.
    """
    data = config.data.model_copy(update={"classes": list(names)})
    samples = load_dataset(data, "train", config.input_size, progress=False).samples
    count = min(count, len(samples))
    chosen = [samples[index * len(samples) // count] for index in range(count)]
    return DetectionDataset(chosen, config.input_size, cache="none").canvases(range(count))
