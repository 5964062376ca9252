"""An image with its labels: the common form of all dataset formats."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import UserError
from utils.core.images import PAD_VALUE, read_image
from utils.core.inputs import ReadError


def _empty(dtype: type, *shape: int):
    return field(default_factory=lambda: np.zeros(shape, dtype))


@dataclass(frozen=True)
class Sample:
    """One image and its objects.

    Attributes:
        path: the image file; for a synthetic image, a name that is unique in the dataset.
        width: width of the upright image (EXIF rotation applied), in pixels.
        height: height of the upright image, in pixels.
        boxes: float32 `(n, 4)`, x1 y1 x2 y2 in pixels of the upright image; never empty, and
            inside the image.
        labels: int64 `(n,)`, indices into the class names.
        difficult: bool `(n,)`, Pascal VOC's flag: VOC AP counts these objects neither as hit nor as
            miss.
        crowd: bool `(n,)`, COCO's `iscrowd`: a region that is never a training target; detections
            inside it do not count.
        draw: draws a synthetic image, RGB uint8 `(height, width, 3)`; picklable. `None` if the
            image is a file.
        file_size: size of the file when it was checked, in bytes; 0 for a synthetic image.
        modified: its modification time then, in ns since 1970; 0 for a synthetic image.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray = _empty(np.float32, 0, 4)
    labels: np.ndarray = _empty(np.int64, 0)
    difficult: np.ndarray = _empty(np.bool_, 0)
    crowd: np.ndarray = _empty(np.bool_, 0)
    draw: Callable[[], np.ndarray] | None = None
    file_size: int = 0
    modified: int = 0

    def read_image(self) -> np.ndarray:
        """Read or draw the image.

        Returns:
            RGB uint8 `(height, width, 3)`, upright.

        Raises:
            UserError: the file is missing or cannot be decoded.
        """
        return self.draw() if self.draw else read_image(self.path)

    def read_image_or_gray(self) -> np.ndarray:
        """As `read_image`, but gray if the file cannot be decoded, as networks see it.

        Raises:
            ReadError: the file cannot be read.
        """
        try:
            return self.read_image()
        except ReadError:
            raise
        except UserError:
            return self.gray_image()

    def gray_image(self) -> np.ndarray:
        """What stands for an image that cannot be decoded: RGB uint8 `(h, w, 3)`, all gray."""
        return np.full((self.height, self.width, 3), PAD_VALUE, np.uint8)


def digest(samples: Sequence[Sample]) -> dict[str, Any]:
    """What identifies the images and labels of a split, wherever its folder is.

    Returns:
        `images` and `objects`, their numbers; `digest`, a hash of names, sizes and labels.
    """
    sha = hashlib.sha256()
    for sample in samples:
        values = (sample.path.name, sample.width, sample.height, sample.file_size)
        sha.update(repr(values).encode("utf-8", "backslashreplace"))
        for array in (sample.boxes, sample.labels, sample.difficult, sample.crowd):
            sha.update(np.ascontiguousarray(array).tobytes())
    objects = sum(len(sample.labels) for sample in samples)
    return {"images": len(samples), "objects": objects, "digest": sha.hexdigest()}
