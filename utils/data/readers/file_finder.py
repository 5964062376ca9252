"""Finding files by name when the case or the suffix may differ."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.core.images import IMAGE_SUFFIXES
from utils.core.inputs import list_folder
from utils.data.dataset_report import DatasetReport


class FileFinder:
    """Looks names up in folders, each listed only once: a `stat` per file is slow over a network.

    Args:
        suffixes: accepted suffixes, in lower case, with the dot.
        report: report that counts the names which are found only after a repair.
    """

    def __init__(
        self, suffixes: frozenset[str] = IMAGE_SUFFIXES, report: DatasetReport | None = None
    ) -> None:
        self.suffixes = suffixes
        self.report = DatasetReport() if report is None else report
        self._listings: dict[Path, dict[tuple[str, str], str]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Find a file by its exact name, else ignoring case, else with another suffix.

        If there is none, the name is tried without quotes and with `/` instead of a backslash.

        Args:
            folder: the folder to search.
            name: the file's name, with or without its suffix; may start with subfolders.

        Returns:
            The path, or `None` if there is no such file.

        Raises:
            ReadError: the folder cannot be read.
        """
        path = self._find(folder / name)
        repaired = name.strip("\"'").replace("\\", "/")
        if path is None and repaired != name:
            path = self._find(folder / repaired)
            if path is not None:
                self.report.note("file name with quotes or backslashes", name)
        return path

    def find_by_end(self, folders: Sequence[Path], name: str) -> Path | None:
        """Find a file by ever shorter ends of a path that was written on another machine; count it.

        Args:
            folders: the folders to search; a longer end counts more than an earlier folder.
            name: the path.

        Raises:
            ReadError: a folder cannot be read.
        """
        ends = zip(*(endings(folder, name) for folder in folders), strict=True)
        for path in (path for of_length in ends for path in of_length):
            found = self.find(path.parent, path.name)
            if found is not None:
                self.report.note("image found by the end of its path", name)
                return found
        return None

    def _find(self, path: Path) -> Path | None:
        stem = path.stem if path.suffix.lower() in self.suffixes else path.name
        listing = self._listing(path.parent)
        for key in _lookup_keys(path.name, stem):
            if key in listing:
                return path.parent / listing[key]
        return None

    def _listing(self, folder: Path) -> dict[tuple[str, str], str]:
        """Lookup key -> file name; of several files with the same key, the first by name."""
        if folder not in self._listings:
            listing: dict[tuple[str, str], str] = {}
            for path in map(Path, list_folder(folder)):
                if path.suffix.lower() in self.suffixes:
                    for key in _lookup_keys(path.name, path.stem):
                        listing.setdefault(key, path.name)
            self._listings[folder] = listing
        return self._listings[folder]


def endings(folder: Path, word: str) -> Iterator[Path]:
    """`folder` with ever shorter ends of a path that was written on another machine."""
    parts = [part for part in word.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield folder.joinpath(*parts[start:])


def lower_case(name: str) -> str:
    """A name in lower case, with each accent in its letter: macOS may write them apart."""
    return unicodedata.normalize("NFC", name).lower()


def _lookup_keys(name: str, stem: str) -> tuple[tuple[str, str], ...]:
    """The keys that a file can be looked up by, the closest match first."""
    return (
        ("name", name),
        ("lower-case name", lower_case(name)),
        ("stem", stem),
        ("lower-case stem", lower_case(stem)),
    )
