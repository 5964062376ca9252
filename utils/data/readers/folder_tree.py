"""Datasets without lists: images and annotations are matched, and split, by their folders."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from utils.core.errors import UserError
from utils.core.images import IMAGE_SUFFIXES
from utils.core.inputs import ReadError, is_folder

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "dev", "test", "testing")
ALL = "all"  # every image, whatever its folder


class FolderTree:
    """The images and annotations below a folder, except in hidden folders.

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
        self._annotations: dict[str, list[Path]] = defaultdict(list)  # by lower-case stem
        for folder, names, files in os.walk(root, onerror=_raise) if is_folder(root) else ():
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                self._add(Path(folder) / name, suffix)
        self.images.sort()

    def _add(self, path: Path, suffix: str) -> None:
        kind = path.suffix.lower()
        if path.name.startswith("."):
            return
        if kind in IMAGE_SUFFIXES:
            self.images.append(path)
        elif kind == suffix:
            self._annotations[path.stem.lower()].append(path)

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

        Raises:
            UserError: two are equally likely.
        """
        found = self._annotations.get(image.stem.lower(), [])
        beside = [path for path in found if path.parent == image.parent]
        if beside or len(found) < 2:
            return next(iter(beside or found), None)
        parts = set(self._parts(image))
        ranked = sorted(found, key=lambda path: -len(parts & set(self._parts(path))))
        first, second = (len(parts & set(self._parts(path))) for path in ranked[:2])
        if first == second:
            raise UserError(
                f"data: {image} may belong to {ranked[0]} or {ranked[1]}: remove or rename one"
            )
        return ranked[0]

    def unmatched_annotations(self) -> list[Path]:
        """Annotation files whose name is that of no image, sorted."""
        stems = {image.stem.lower() for image in self.images}
        groups = (paths for stem, paths in self._annotations.items() if stem not in stems)
        return sorted(path for paths in groups for path in paths)

    def has_annotations(self) -> bool:
        """Whether an image has an annotation."""
        return any(image.stem.lower() in self._annotations for image in self.images)

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.root).parts[:-1]


SPLIT_NAMES = frozenset((*TRAIN_NAMES, *VAL_NAMES))


def _raise(error: OSError) -> None:
    raise ReadError(f"cannot list {error.filename}: {(error.strerror or str(error)).lower()}")
