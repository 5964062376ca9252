"""Where the images of `predict.py` come from: files, a folder, or a dataset."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from utils.core.errors import UserError
from utils.core.files import ReadError, check_input, is_folder, similar_file
from utils.core.images import IMAGE_SUFFIXES, read_image
from utils.core.schema import Config
from utils.data.loading import load_dataset


@dataclass(frozen=True)
class ImageSource:
    """An image that is read on demand, from a file or a synthetic dataset.

    Attributes:
        name: name in reports: a path, absolute or relative.
        read: returns RGB uint8 `(h, w, 3)`; raises `UserError` if the file is not an image.
    """

    name: str
    read: Callable[[], np.ndarray]


def image_files(paths: Sequence[str | Path]) -> list[ImageSource]:
    """Image files, in the order given.

    Raises:
        UserError: a path does not exist, is not a regular file, or cannot be read.
    """
    for path in paths:
        if "://" in str(path):
            raise UserError(f"--source {path}: is an address; only --mode video reads streams")
        if is_folder(path):
            raise UserError(f"--source {path} is a folder: use --mode dir for all images in it")
        try:
            check_input(path, "--source")
        except ReadError as error:
            raise UserError(f"{error}{similar_file(path)}") from None
    return [ImageSource(str(path), partial(read_image, path)) for path in paths]


def image_folder(folder: str | Path) -> list[ImageSource]:
    """All images in a folder and its subfolders, sorted and named by their relative path.

    Raises:
        UserError: the folder does not exist, has no images, or cannot be listed.
    """
    if not is_folder(folder):
        problem = "does not exist"
        if os.path.lexists(folder):
            problem = "is not a folder: use --mode image or video"
        raise UserError(f"--source {folder} {problem}; expected a folder of images")
    folder = Path(folder)
    images = []
    for path in sorted(_files_below(folder)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(folder).as_posix()
            images.append(ImageSource(name, partial(read_image, path)))
    if not images:
        raise UserError(f"--source {folder}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _files_below(folder: Path) -> Iterator[Path]:
    """Everything in a folder and its subfolders but folders; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--source {error.filename}: {reason}")

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)


def validation_images(config: Config, limit: int) -> list[ImageSource]:
    """The first `limit` validation images of the dataset of `config`."""
    dataset = load_dataset(config.data, "val", config.input_size, progress=False)
    return [ImageSource(str(sample.path), sample.read_image) for sample in dataset.samples[:limit]]
