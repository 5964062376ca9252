"""Finding the files of a dataset: images by name whatever the case of their suffix, lists, class lists."""

from pathlib import Path

from utils.core.errors import UserError, nearest
from utils.core.images import IMAGE_SUFFIXES


class FileFinder:
    """Looks names up in folders that are listed only once (a `stat` an image is slow on network drives).

    Args:
        suffixes: lower-case suffixes that count, with the dot.
    """

    def __init__(self, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> None:
        self.suffixes = suffixes
        self._folders: dict[Path, dict[tuple[str, str], str]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """The file `name` of `folder`: exactly, else in another case, else with another suffix; `None` if absent.

        `name` may hold subfolders and may lack its suffix.
        """
        path = folder / name
        listing = self._listing(path.parent)
        stem = path.stem if path.suffix.lower() in self.suffixes else path.name
        choices = (path.name, path.name.lower(), stem, stem.lower())
        keys = zip(("name", "lower name", "stem", "lower stem"), choices, strict=True)
        found = next((listing[key] for key in keys if key in listing), None)
        return path.parent / found if found else None

    def all(self, folder: Path) -> list[Path]:
        """Every file of `folder`, sorted by name."""
        return [folder / name for kind, name in self._listing(folder) if kind == "name"]

    def _listing(self, folder: Path) -> dict[tuple[str, str], str]:
        """(kind of key, key) -> file name; of two files with one key, the first by name."""
        if folder not in self._folders:
            table: dict[tuple[str, str], str] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix.lower() in self.suffixes:
                    name, stem = path.name, path.stem
                    keys = (
                        ("name", name),
                        ("lower name", name.lower()),
                        ("stem", stem),
                        ("lower stem", stem.lower()),
                    )
                    for key in keys:
                        table.setdefault(key, name)
            self._folders[folder] = table
        return self._folders[folder]


def label_of(name: str, names: tuple[str, ...], where: str | Path) -> int:
    """Index of class `name`.

    Raises:
        UserError: it is not in the list.
    """
    if name not in names:
        raise UserError(f"{where}: class '{name}' is not in the class list{nearest(name, names)}")
    return names.index(name)
