"""Where the images of `predict.py` come from: files, a folder, or a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from utils.core.errors import UserError, nearest
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
        UserError: a path does not exist or is a folder.
    """
    for path in map(Path, paths):
        if path.is_dir():
            raise UserError(f"--source {path} is a folder: use --mode dir for all images in it")
        if not path.is_file():
            raise UserError(f"--source {path}: no such file{_similar(path)}")
    return [ImageSource(str(path), partial(read_image, path)) for path in paths]


def _similar(path: Path) -> str:
    """A hint at a file with a similar name; empty rather than a list of all files."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, names)
    return hint if hint.startswith("; did") else ""


def image_folder(folder: str | Path) -> list[ImageSource]:
    """All images in a folder and its subfolders, sorted and named by their relative path.

    Raises:
        UserError: the folder does not exist or has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file: use --mode image or video" if folder.exists() else "does not exist"
        raise UserError(f"--source {folder} {problem}; expected a folder of images")
    images = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            name = path.relative_to(folder).as_posix()
            images.append(ImageSource(name, partial(read_image, path)))
    if not images:
        raise UserError(f"--source {folder}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def validation_images(config: Config, limit: int) -> list[ImageSource]:
    """The first `limit` validation images of the dataset of `config`."""
    dataset = load_dataset(config.data, "val", config.input_size, progress=False)
    return [ImageSource(str(sample.path), sample.read_image) for sample in dataset.samples[:limit]]
