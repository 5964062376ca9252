"""The one description of a labeled image that every data format is read into."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


def _empty(dtype: type, *shape: int):
    return field(default_factory=lambda: np.zeros(shape, dtype))


@dataclass(frozen=True)
class Sample:
    """One image and its objects.

    Attributes:
        path: the image's file; for drawn images a name that is unique in the dataset.
        width, height: size of the upright image (EXIF rotation applied), pixels.
        boxes: float32 `(n, 4)`, x1 y1 x2 y2 in pixels of the upright image, inside it, never empty.
        labels: int64 `(n,)`, index into the class list.
        difficult: bool `(n,)`, Pascal VOC's flag: not counted by VOC AP, neither as hit nor as miss.
        crowd: bool `(n,)`, COCO's `iscrowd`: a region, never a training target; detections in it are not counted.
        draw: makes the image (RGB uint8 `(height, width, 3)`) where there is no file; picklable.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray = _empty(np.float32, 0, 4)
    labels: np.ndarray = _empty(np.int64, 0)
    difficult: np.ndarray = _empty(np.bool_, 0)
    crowd: np.ndarray = _empty(np.bool_, 0)
    draw: Callable[[], np.ndarray] | None = None
