"""Where the images of `predict.py` come from: files, a folder, or a dataset."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.core.errors import UserError, without_login
from utils.core.images import IMAGE_SUFFIXES, FileState, read_image_file
from utils.core.inputs import (
    ReadError,
    check_input,
    is_file,
    is_folder,
    open_input,
    similar_file,
    walk_folder,
)
from utils.core.schema import Config
from utils.data.dataset_report import DAMAGE, RULES
from utils.data.loading import load_dataset

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
    | {".m2ts", ".mts", ".3gp", ".ogv"}
)
VIDEO_STARTS = (  # offset and bytes
    (4, b"ftypisom"),
    (4, b"ftypmp4"),
    (4, b"ftypM4V"),
    (4, b"ftypqt"),
    (8, b"AVI "),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska and WebM
    (0, b"FLV\x01"),
    (0, b"\x00\x00\x01\xba"),  # MPEG
)


@dataclass(frozen=True)
class ImageSource:
    """An image that is read on demand, from a file or a synthetic dataset.

    Attributes:
        name: name in reports: a path, absolute or relative.
        read: returns RGB uint8 `(h, w, 3)`; raises `UserError` if the file is not an image.
        path: the file; None if there is none.
        from_folder: it was found in a folder: `name` is relative to that folder, its subfolders are
            kept in outputs, and it is skipped if it cannot be read.
    """

    name: str
    read: Callable[[], np.ndarray]
    path: Path | None = None
    from_folder: bool = False


def find_mode(sources: Sequence[str]) -> str:
    """The mode that sources ask for: "video", or "image" for images and folders.

    Raises:
        UserError: there are videos and images.
    """
    videos = [source for source in sources if is_video(source)]
    if videos and len(videos) < len(sources):
        other = next(source for source in sources if source not in videos)
        raise UserError(
            f"--source {without_login(videos[0])}: is a video, but {without_login(other)} is not: "
            "one command for each kind"
        )
    return "video" if videos else "image"


def is_video(source: str) -> bool:
    """Whether a source is a camera's number, a stream's address, or a video file.

    A file's name decides, else its first bytes.
    """
    suffix = Path(source).suffix.lower()
    if suffix in IMAGE_SUFFIXES or is_folder(source):
        return False
    if "://" in source or suffix in VIDEO_SUFFIXES:
        return True
    if not is_file(source):
        return source.isascii() and source.isdecimal()
    with open_input(source, "--source") as file:
        start = file.read(16)
    return any(start[offset:].startswith(magic) for offset, magic in VIDEO_STARTS)


def image_sources(paths: Sequence[str | Path]) -> list[ImageSource]:
    """Images, and all images in folders, in the order given.

    Raises:
        UserError: as for `image_files` and `image_folder`.
    """
    images = []
    for path in paths:
        images += image_folder(path) if is_folder(path) else image_files([path])
    return images


def image_files(paths: Sequence[str | Path]) -> list[ImageSource]:
    """Image files, in the order given.

    Raises:
        UserError: a path does not exist, is not a regular file, or cannot be read.
    """
    for path in paths:
        if "://" in str(path):
            raise UserError(
                f"--source {without_login(str(path))}: is an address: download the image, or give "
                "--mode video for a stream"
            )
        if is_folder(path):
            raise UserError(
                f"--source {path} is a folder: use --mode dir to detect on all images in it, "
                "or name image files"
            )
        try:
            check_input(path, "--source")
        except ReadError as error:
            raise UserError(f"{error}{similar_file(path)}") from None
    return [ImageSource(str(path), partial(_read_file, path), Path(path)) for path in paths]


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
            images.append(ImageSource(name, partial(_read_file, path), path, from_folder=True))
    if not images:
        raise UserError(f"--source {folder}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _read_file(path: str | Path) -> np.ndarray:
    """Read an image; damage to the file is told."""
    image, state = read_image_file(path)
    if state != FileState.WHOLE:
        tqdm.write(f"note: {path}: {DAMAGE[state]}: {RULES[DAMAGE[state]]}", file=sys.stderr)
    return image


def _files_below(folder: Path) -> Iterator[Path]:
    """Everything in a folder and its subfolders but folders."""

    def refuse(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--source {error.filename}: {reason}")

    for parent, _, names in walk_folder(folder, refuse):
        yield from (parent / name for name in names)


def validation_images(config: Config, limit: int) -> list[ImageSource]:
    """The first `limit` validation images of the dataset of `config`."""
    samples = load_dataset(config.data, "val", config.input_size, progress=False).samples
    return [ImageSource(str(one.path), one.read_image, one.path) for one in samples[:limit]]
