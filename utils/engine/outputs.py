"""Where the results of `predict.py` go: folders, file names, a JSON list, a summary."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nets.inference.detections import Detections
from utils.core.errors import UserError
from utils.core.files import OverwriteError, new_file
from utils.core.images import IMAGE_SUFFIXES
from utils.engine.runs import OUTPUT, make_new_folder
from utils.visualization.video import CODECS

WRITABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass
class Summary:
    """Summary of a prediction; `str()` is the report for the terminal.

    Attributes:
        unit: "images" or "frames".
        done: number of images or frames processed.
        seconds: wall-clock time.
        counts: detections per class name.
        skipped: one line for each image that could not be read.
        out: the folder or file that was written.
        stopped: whether the user stopped it early.
    """

    unit: str
    done: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    out: Path | None = None
    stopped: bool = False

    def add(self, detections: Detections) -> None:
        """Count one image and its detections."""
        self.done += 1
        self.counts.update(detections.names[int(label)] for label in detections.labels)

    def __str__(self) -> str:
        rate = self.done / max(self.seconds, 1e-9)
        objects = sum(self.counts.values())
        lines = [f"{self.done} {self.unit}, {objects} objects, {self.seconds:.1f} s ({rate:.1f}/s)"]
        width = max((len(name) for name in self.counts), default=0)
        lines += [f"  {name:<{width}}  {count}" for name, count in self.counts.most_common()]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} that could not be read")
        if self.out:
            lines.append(f"written: {self.out}")
        return "\n".join(lines)


def new_output_folder() -> Path:
    """Make `runs/predict`, or the first of `runs/predict-2`, `runs/predict-3`, ... that is free."""
    return make_new_folder(Path(OUTPUT) / "predict", "--out")


def unused_path(path: Path) -> Path:
    """Return `path`, or with "-2", "-3", ... before the suffix, whichever does not exist yet."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


class ImageTarget:
    """Chooses the file that each image is written to; a new folder is created on first use.

    Args:
        out: a folder, or for a single image a file; None: `runs/predict`, `runs/predict-2`, ...
        count: number of images.
        keep_folders: names are relative paths, whose folders are recreated below `out`.

    Raises:
        UserError: `out` is a file, but there are several images.
    """

    def __init__(self, out: str | Path | None, count: int, keep_folders: bool) -> None:
        self.out = None if out is None else Path(out)
        self._keep_folders = keep_folders
        self._is_file = False
        if self.out is not None and not self.out.is_dir():
            self._is_file = self.out.suffix.lower() in IMAGE_SUFFIXES
        if self._is_file and count > 1:
            raise UserError(
                f"--out {out} is a file name, but there are {count} images: give a folder"
            )

    def __call__(self, name: str) -> Path:
        """Return the file for an image; in a folder, never an existing one."""
        if self.out is None:
            self.out = new_output_folder()
        if self._is_file:
            return self.out
        path = Path(name) if self._keep_folders else Path(Path(name).name)
        suffix = "" if path.suffix.lower() in WRITABLE else ".png"
        return unused_path(self.out / path.with_name(path.name + suffix))


def output_file(out: str | Path | None) -> Path | None:
    """Return `out` if it names a file, and None if it is a folder or missing."""
    path = Path(out or "")
    return path if path.suffix and not path.is_dir() else None


def video_target(out: str | Path | None, name: str) -> Path:
    """Return the file that a video is written to.

    Args:
        out: a video file, or a folder for "<name>.mp4"; None: a new folder.
        name: file name or address of the video.

    Raises:
        UserError: `out` is not a video file.
    """
    stem = "stream" if "://" in name else Path(name).stem
    if out is None:
        return new_output_folder() / f"{stem}.mp4"
    path = Path(out)
    if path.is_dir() or not path.suffix:
        return unused_path(path / f"{stem}.mp4")
    if path.suffix.lower() not in CODECS:
        raise UserError(f"--out {out}: expected a folder or a video file ({', '.join(CODECS)})")
    return path


@contextmanager
def json_list(path: str | Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends an entry to the JSON list in `path`; None: it does nothing.

    Entries are written immediately, so memory use is constant. Whatever ends the block, the list of
    what was done until then is kept, unless the file cannot be written or is an input.

    Raises:
        WriteError: the file cannot be written.
    """
    if path is None:
        yield lambda entry: None
        return
    stopped: BaseException | None = None
    # backslashreplace: file names that are not UTF-8 become valid escapes
    with (
        new_file(path) as part,
        open(part, "w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        separator = "[\n"

        def add(entry: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry, ensure_ascii=False))
            separator = ",\n"

        try:
            yield add
        except (OSError, OverwriteError):
            raise
        except BaseException as error:
            stopped = error
        file.write("[]\n" if separator == "[\n" else "\n]\n")
    if stopped is not None:
        raise stopped
