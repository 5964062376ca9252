"""Which ids images and classes have in COCO's results format."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.layout import resolve
from utils.data.readers import coco
from utils.engine.sources import ImageSource


@dataclass(frozen=True)
class CocoIds:
    """The ids of some images and of a model's classes.

    Attributes:
        images: id of each image.
        categories: id of each class.
        origin: where the ids of the images come from.
    """

    images: Sequence[Any]
    categories: Sequence[Any]
    origin: str


def choose_ids(images: Sequence[ImageSource], data: DataConfig, names: Sequence[str]) -> CocoIds:
    """Ids of the dataset, if all images and classes are in it; else file names; else 1, 2, 3, ...

    Args:
        images: the images.
        data: the dataset; only COCO has ids, and only those of the validation split are used.
        names: the model's classes.

    Returns:
        The ids. Images have the numbers in their file names, as COCO's own, if these are different
        integers. Classes have their index + 1 if the dataset's ids are not used.
    """
    known, categories = _dataset_ids(data)
    paths = [os.path.realpath(image.path or image.name) for image in images]
    if all(path in known for path in paths) and all(name in categories for name in names):
        ids = [known[path] for path in paths]
        return CocoIds(ids, [categories[name] for name in names], f"those of {data.root}")
    own = range(1, len(names) + 1)
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]  # noqa: PTH119, PTH122
    if all(stem.isascii() and stem.isdecimal() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return CocoIds(numbers, own, "the numbers in the file names")
    return CocoIds(range(1, len(images) + 1), own, "1, 2, 3, ... in order")


def _dataset_ids(data: DataConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids in the dataset, by real path and by class; none if it is not COCO, or not here."""
    try:
        data, _ = resolve(data)
        return coco.read_ids(data, data.val) if data.format == "coco" else ({}, {})
    except UserError:  # weights are used without their dataset; `CocoIds.origin` is reported
        return {}, {}
