"""A detector that finds pictures to calibrate int8 on by itself: some of those it was trained on."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nets.loading import load_model
from nets.predictor import Detector
from utils.data.dataset import PictureSet
from utils.data.source import load_split
from utils.schema import Config

PICTURES = 300


def open_detector(path: str | Path, *overrides: str, **values: Any) -> Detector:
    """`nets.load_model`, for command lines: int8 is calibrated on the training split of the detector's data set."""
    detector = load_model(path, *overrides, **values)
    detector.source.calibration = partial(training_canvases, detector.config, detector.names)
    return detector


def training_canvases(config: Config, names: tuple[str, ...], count: int = PICTURES) -> np.ndarray:
    """Up to `count` training pictures, evenly spread, as the network sees them without augmentation.

    Returns:
        uint8 `(n, H, W, 3)`.

    Raises:
        UserError: the data set is not there.
    """
    data = config.data.model_copy(update={"classes": list(names)})
    records = load_split(data, "train", config.input_size, progress=False).records
    count = min(count, len(records))
    chosen = [records[index * len(records) // count] for index in range(count)]
    return PictureSet(chosen, config.input_size, cache="none").canvases(range(count))
