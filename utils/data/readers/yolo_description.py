"""Files that describe a YOLO dataset: Ultralytics' `data.yaml` and Darknet's `obj.data`."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.class_names import read_lines
from utils.core.errors import UserError
from utils.core.inputs import find_first, is_file, is_outage, list_folder
from utils.core.text import read_text
from utils.core.yaml_text import parse_yaml
from utils.data.readers.base import require_folder
from utils.data.readers.file_finder import endings
from utils.data.readers.values import shown

FIRST = ("data.yaml", "data.yml", "dataset.yaml", "obj.data")
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Description:
    """The content of such a file.

    Attributes:
        path: the file.
        entries: its keys; of `obj.data`, all values are text.
        encoding: the encoding of its text.
    """

    path: Path
    entries: dict[str, Any]
    encoding: str

    def locations(self, split: str) -> list[Path] | None:
        """The folders and lists of a split; `None` if the file does not name it.

        Raises:
            UserError: one is not there.
        """
        key, words = self._named(split)
        found = []
        for word in words:
            path = self.locate(word)
            if path is None:
                raise UserError(
                    f"{self.path}: {key}: expected a folder or a list of images, but "
                    f"{self._base / str(word)} does not exist, nor does {self.path.parent} have "
                    "an end of this path"
                )
            found.append(path)
        return found or None

    def has(self, split: str) -> bool:
        """Whether something that the file names for a split is there."""
        return any(map(self.locate, self._named(split)[1]))

    def splits(self) -> list[str]:
        """The first split that is named, so that its absence is an error, and others if there.

        Roboflow names all three, whichever there are.
        """
        named = [split for split in KEYS if self._named(split)[1]]
        return [split for split in named if split == named[0] or self.has(split)]

    def locate(self, word: Any) -> Path | None:
        """Find what a path of the file means; Roboflow writes `../train/images` for `train/images`.

        Paths may be relative to `path:`, to the file, or end in something that is there.
        """
        if not isinstance(word, str):
            return None
        folder = self.path.parent
        whole = f"{self.entries.get('path') or ''}/{word}"
        return find_first([self._base / word, folder / word, *endings(folder, whole)])

    def keypoint_numbers(self) -> int:
        """How many numbers stand for keypoints in each label (Ultralytics' pose); usually 0.

        Raises:
            UserError: `kpt_shape` is not the number of keypoints and 2 or 3.
        """
        shape = self.entries.get("kpt_shape")
        if shape is None:
            return 0
        match shape:
            case [int(count), 2 | 3 as size] if count > 0:
                return count * int(size)
        raise UserError(
            f"{self.path}: kpt_shape: expected, for example, [17, 3], got {shown(shape)}"
        )

    @property
    def _base(self) -> Path:
        return self.path.parent / str(self.entries.get("path") or "")

    def refuse_misspelled(self, chosen: Collection[str | None]) -> None:
        """Refuse a misspelled split; it would be missing, and the training split divided instead.

        Args:
            chosen: splits that the user named; they may have any name.

        Raises:
            UserError: a key that names something that is there is close to a split that is missing.
        """
        missing = [split for split in KEYS if not self._named(split)[1]]
        for key, value in self.entries.items():
            if key in chosen:
                continue
            words = value if isinstance(value, list) else [value]
            close = difflib.get_close_matches(str(key), missing, n=1)
            if close and any(map(self.locate, words)):
                raise UserError(f"{self.path}: {key}: unknown key; did you mean '{close[0]}'?")

    def _named(self, split: str) -> tuple[str, list[Any]]:
        """The key of a split and what it names."""
        for key in KEYS.get(split, (split,)):
            value = self.entries.get(key)
            if value:
                return key, value if isinstance(value, list) else [value]
        return split, []


def open_root(root: Path) -> tuple[Path, Description | None]:
    """The folder of a dataset and its description, if it has one.

    Args:
        root: the folder, or the description in it.

    Raises:
        UserError: there is no such folder, or the description cannot be read.
    """
    if is_file(root):
        return root.parent, read_description(root)
    require_folder(root, "data.root")
    return root, find_description(root)


def find_description(root: Path) -> Description | None:
    """The first file in a folder that names classes and a split, or is one of the usual names."""
    names = [name for name in list_folder(root) if name.endswith((".yaml", ".yml", ".data"))]
    usual = next((name for name in FIRST if name in names), None)
    if usual is not None:
        return read_description(root / usual)
    descriptions = (_try_description(root / name) for name in names)
    return next((found for found in descriptions if found is not None), None)


def _try_description(path: Path) -> Description | None:
    """What a file of any name describes; `None` if it is no description, or unreadable."""
    try:
        description = read_description(path)
    except UserError as error:
        if is_outage(error):
            raise
        return None
    is_one = "names" in description.entries and any(map(description.has, KEYS))
    return description if is_one else None


def read_description(path: Path) -> Description:
    """Read a `data.yaml` or `obj.data`.

    Raises:
        UserError: it cannot be read.
    """
    if path.suffix == ".data":
        pairs = [line.partition("=") for line in read_lines(path) if "=" in line]
        return Description(path, {key.strip(): value.strip() for key, _, value in pairs}, "utf-8")
    text, encoding = read_text(path)
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: names: expected a list of class names")
    return Description(path, content, encoding)
