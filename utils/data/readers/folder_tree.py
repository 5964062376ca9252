"""Datasets without lists: images and annotations are matched, and split, by their folders."""

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

from utils.core.errors import UserError
from utils.core.images import IMAGE_SUFFIXES
from utils.core.inputs import ReadError, is_folder, walk_folder
from utils.data.readers.file_finder import lower_case

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "dev", "test", "testing")
ALL = "all"  # every image, whatever its folder

Likeness = tuple[bool, int, bool]  # of the places of an image and an annotation, larger is closer
NONE: Likeness = (False, 0, False)


class FolderTree:
    """The images and annotations below a folder, except in hidden folders.

    Links to folders elsewhere are followed.

    Args:
        root: the folder.
        suffix: that of the annotations, in lower case, with the dot.

    Attributes:
        images: image files, sorted.

    Raises:
        ReadError: a folder cannot be listed.
    """

    def __init__(self, root: Path, suffix: str) -> None:
        self.root = root
        self.images: list[Path] = []
        self._images: dict[str, list[Path]] = defaultdict(list)  # by lower-case stem
        self._annotations: dict[str, list[Path]] = defaultdict(list)  # by lower-case stem
        self._closest: dict[Path, Likeness] = {}  # annotation -> that to its closest image
        self._parts_of: dict[Path, tuple[str, ...]] = {}  # folder -> its path below the root
        for folder, names, files in walk_folder(root, _raise) if is_folder(root) else ():
            names[:] = [name for name in names if not name.startswith(".")]
            for name in sorted(files):
                self._add(folder / name, suffix)
        self.images.sort()

    def _add(self, path: Path, suffix: str) -> None:
        kind = path.suffix.lower()
        if path.name.startswith("."):
            return
        if kind in IMAGE_SUFFIXES:
            self.images.append(path)
            self._images[lower_case(path.stem)].append(path)
        elif kind == suffix:
            self._annotations[lower_case(path.stem)].append(path)

    def splits(self) -> dict[str, int]:
        """Names of folders that stand for a split, as they are written -> number of images."""
        counts: Counter[str] = Counter()
        for image in self.images:
            names = [part for part in self._parts(image) if part.lower() in SPLIT_NAMES]
            counts.update(names[:1])
        return dict(counts)

    def images_of(self, split: str) -> list[Path]:
        """The images in folders of that name, in any letter case; all of them for `ALL`."""
        if split == ALL:
            return self.images
        wanted = split.lower()
        return [
            image
            for image in self.images
            if wanted in (part.lower() for part in self._parts(image))
        ]

    def annotation_of(self, image: Path) -> Path | None:
        """The annotation file with the name of an image, in the most similar folder.

        A file to which another image is closer belongs to that one; an image outside the root has
        none.

        Raises:
            UserError: two are equally likely.
        """
        if not _absolute(image).is_relative_to(_absolute(self.root)):
            return None
        named = self._annotations.get(lower_case(image.stem), [])
        own = [path for path in named if self._likeness(image, path) >= self._likeness_of(path)]
        ranked = sorted(own, key=lambda path: self._likeness(image, path), reverse=True)
        likenesses = [self._likeness(image, path) for path in ranked[:2]]
        if len(ranked) > 1 and likenesses[0] == likenesses[1]:
            raise UserError(
                f"data: {image} may belong to {ranked[0]} or {ranked[1]}: remove or rename one"
            )
        return ranked[0] if ranked else None

    def _likeness_of(self, annotation: Path) -> Likeness:
        """The likeness of an annotation to its closest image."""
        if annotation not in self._closest:
            images = self._images.get(lower_case(annotation.stem), [])
            likenesses = [self._likeness(image, annotation) for image in images]
            self._closest[annotation] = max(likenesses, default=NONE)
        return self._closest[annotation]

    def _likeness(self, image: Path, annotation: Path) -> Likeness:
        """Whether the folders are the same, their common parts, whether the case is the same."""
        first, second = self._parts(image), self._parts(annotation)
        common = len(set(first) & set(second))
        return first == second, common, image.stem == annotation.stem

    def unmatched_annotations(self) -> list[Path]:
        """Annotation files whose name is that of no image, sorted."""
        groups = (paths for stem, paths in self._annotations.items() if stem not in self._images)
        return sorted(path for paths in groups for path in paths)

    def has_annotations(self) -> bool:
        """Whether an image has an annotation."""
        return not self._annotations.keys().isdisjoint(self._images)

    def _parts(self, path: Path) -> tuple[str, ...]:
        """The folders between the root and a file below it."""
        folder = path.parent
        if folder not in self._parts_of:
            inner = _absolute(folder).relative_to(_absolute(self.root))
            self._parts_of[folder] = inner.parts
        return self._parts_of[folder]


SPLIT_NAMES = frozenset((*TRAIN_NAMES, *VAL_NAMES))


def role_of(split: str) -> str:
    """`train`, `val` or `test`, as a split's name says: `valid`, `2007/test`, `train2017`."""
    base = base_name(split)
    if base in TRAIN_NAMES:
        return "train"
    if base not in SPLIT_NAMES:
        return ""
    return "test" if base.startswith("test") else VAL_NAMES[0]


def base_name(split: str) -> str:
    """The name of a split without folder and year: `train` for `2007/train` and `Train2017`."""
    return re.sub(r"\d+$", "", split.lower().rpartition("/")[2])


def _absolute(path: Path) -> Path:
    """Without `..`, but links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100  `Path.absolute` keeps `..`


def _raise(error: OSError) -> None:
    raise ReadError(f"cannot list {error.filename}: {(error.strerror or str(error)).lower()}")
