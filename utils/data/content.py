"""Hashes of the pixels and of the labels of a split, which show that it has not changed since."""

import hashlib
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
from pydantic import Field

from utils.core.inputs import hash_content, read_with
from utils.core.progress import progress_bar
from utils.core.validation import SavedSection
from utils.data.sample import Sample

THREADS = 4  # that read image files; hashing releases Python's lock


class SplitContent(SavedSection):
    """What a split consists of.

    Attributes:
        images: number of images.
        objects: number of objects.
        pixels: hash of the names and bytes of the image files, in order; of drawn images, of what
            their pixels follow from.
        labels: hash of the sizes of the images and their objects, in order.
    """

    images: Annotated[int, Field(ge=0)]
    objects: Annotated[int, Field(ge=0)]
    pixels: str
    labels: str


def hash_split(samples: Sequence[Sample], progress: bool = True) -> SplitContent:
    """Read and hash all images and labels of a split, wherever its folder is.

    Args:
        samples: the images with their labels.
        progress: show a progress bar.

    Raises:
        ReadError: an image file cannot be read.
    """
    pixels, labels = hashlib.sha256(), hashlib.sha256()
    bar = progress_bar(desc="hashing images", total=len(samples), show=progress)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for image in pool.map(_hash_image, samples):
            pixels.update(image)
            bar.update()
    for sample in samples:
        labels.update(f"{sample.width}x{sample.height} {len(sample.labels)}".encode())
        for array in (sample.boxes, sample.labels, sample.difficult, sample.crowd):
            labels.update(np.ascontiguousarray(array).tobytes())
    objects = sum(len(sample.labels) for sample in samples)
    return SplitContent(
        images=len(samples),
        objects=objects,
        pixels=pixels.hexdigest(),
        labels=labels.hexdigest(),
    )


def _hash_image(sample: Sample) -> bytes:
    name = sample.path.name.encode("utf-8", "backslashreplace")
    if sample.draw is not None:  # drawing takes long
        return name + pickle.dumps(sample.draw, protocol=4)
    return name + read_with(hash_content, sample.path).encode()
