"""Where predictions go: folders that are new, names that are free, a JSON list that is written as it grows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.core.errors import UserError
from utils.core.images import IMAGE_SUFFIXES
from utils.visualization.video import CODECS

OUTPUT = Path("runs") / "predict"
WRITABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def fresh_folder(base: Path = OUTPUT) -> Path:
    """Make and return `base`, or `base-2`, `base-3`, ..., whichever does not exist yet."""
    folder, number = base, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
        except OSError as error:
            raise UserError(f"cannot make folder {folder}: {error.strerror or error}") from None


def free(path: Path) -> Path:
    """`path`, or with "-2", "-3", ... before the suffix, whichever does not exist yet."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


class PictureTarget:
    """Gives every image the file that it is written to; a new folder is made when the first one asks.

    Args:
        out: a folder; for one image also a file; none: `runs/predict`, `runs/predict-2`, ...
        count: number of pictures. keep_folders: names are relative paths whose folders are kept below `out`.
    """

    def __init__(self, out: str | Path | None, count: int, keep_folders: bool) -> None:
        self.out = None if out is None else Path(out)
        self._keep_folders = keep_folders
        self._is_file = (
            self.out is not None
            and not self.out.is_dir()
            and self.out.suffix.lower() in IMAGE_SUFFIXES
        )
        if self._is_file and count > 1:
            raise UserError(
                f"--out {out} is a file name, but there are {count} images: give a folder"
            )

    def __call__(self, name: str) -> Path:
        """The file for the image `name`: never its own source, nor, in a folder, one that exists."""
        if self.out is None:
            self.out = fresh_folder()
        if self._is_file:
            _refuse_source(self.out, name)
            return self.out
        path = Path(name) if self._keep_folders else Path(Path(name).name)
        suffix = "" if path.suffix.lower() in WRITABLE else ".png"
        return free(self.out / path.with_name(path.name + suffix))


def video_target(out: str | Path | None, name: str, source: str | int | Path) -> Path:
    """The file that the video `name` is written to: `out`, or "<name>.mp4" in the folder `out` or a new folder.

    Raises:
        UserError: that file is the source itself.
    """
    stem = "stream" if "://" in name else Path(name).stem
    if out is None:
        return fresh_folder() / f"{stem}.mp4"
    path = Path(out)
    if path.is_dir() or not path.suffix:
        return free(path / f"{stem}.mp4")
    if path.suffix.lower() not in CODECS:
        raise UserError(f"--out {out}: expected a folder or a video file ({', '.join(CODECS)})")
    _refuse_source(path, str(source))
    return path


def _refuse_source(path: Path, source: str) -> None:
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise UserError(f"--out {path} is the source itself: give another name")


@contextmanager
def json_list(path: str | Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that appends an entry to the JSON list in `path` (none: does nothing).

    Entries go to the file at once, so memory stays flat; the list is closed also after an error or Ctrl-C.

    Raises:
        UserError: the file cannot be written.
    """
    if path is None:
        yield lambda entry: None
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("[]\n", encoding="utf-8")  # fails now rather than after the work
    except OSError as error:
        raise UserError(f"cannot write --json {path}: {error.strerror or error}") from None
    with open(path, "w", encoding="utf-8") as file:
        separator = "[\n"

        def add(entry: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry, ensure_ascii=False))
            separator = ",\n"

        try:
            yield add
        finally:
            file.write("[]\n" if separator == "[\n" else "\n]\n")
