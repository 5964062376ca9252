"""Where the results of `predict.py` go: folders, file names, a JSON list, a summary."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from nets.inference.detections import Detections
from utils.core.class_names import padded
from utils.core.errors import UserError, counted
from utils.core.outputs import OverwriteError, new_file
from utils.engine.runs import OUTPUT, make_new_folder
from utils.visualization.video import CODECS


@dataclass
class Summary:
    """Summary of a prediction; `str()` is the report for the terminal.

    Attributes:
        unit: "images" or "frames".
        done: number of images or frames processed.
        seconds: wall-clock time.
        counts: detections per class name.
        skipped: one line for each image that could not be read.
        notes: lines about what was written.
        out: the folder or file that was written.
        stopped: whether the user stopped it early.
        followed: number of objects that were followed; None without `--track`.
        crossed: objects that crossed the line of `--line`, by direction, "in" and "out".
    """

    unit: str
    done: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    out: Path | None = None
    stopped: bool = False
    crossed: Counter[str] = field(default_factory=Counter)
    followed: int | None = None

    def add(self, detections: Detections) -> None:
        """Count one image and its detections."""
        self.done += 1
        self.counts += detections.per_class()

    def __str__(self) -> str:
        rate = self.done / max(self.seconds, 1e-9)
        objects = sum(self.counts.values())
        done, found = counted(self.done, self.unit), counted(objects, "objects")
        lines = [f"{done}, {found}, {self.seconds:.1f} s ({rate:.1f}/s)"]
        ranked = self.counts.most_common()
        names = padded(name for name, _ in ranked)
        lines += [f"  {name}  {count}" for name, (_, count) in zip(names, ranked, strict=True)]
        if self.followed is not None:
            hint = "" if self.followed else ": trackers need higher scores (docs/predicting.md)"
            lines.append(f"followed: {self.followed}{hint}")
        if self.crossed:
            lines.append(f"line: {self.crossed['in']} in, {self.crossed['out']} out")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} that could not be read")
        lines += self.notes
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
def growing_file(path: str | Path) -> Iterator[TextIO]:
    """Yield a text file to append to; it gets its name when the block ends.

    Whatever ends the block, what was written until then is kept, unless the file cannot be written
    or is an input.

    Raises:
        WriteError: the file cannot be written.
    """
    stopped: BaseException | None = None
    # backslashreplace: file names that are not UTF-8 become valid escapes
    with (
        new_file(path) as part,
        open(part, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        try:
            yield file
        except (OSError, OverwriteError):
            raise
        except BaseException as error:
            stopped = error
    if stopped is not None:
        raise stopped


@contextmanager
def json_list(
    path: str | Path | None, before: str = "", after: str = ""
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends an entry to the JSON list in `path`; None: it does nothing.

    Entries are written immediately, so memory use is constant; see `growing_file`.

    Args:
        path: the file.
        before: put before the list, if it is a part of something larger.
        after: put after the list.

    Raises:
        WriteError: the file cannot be written.
    """
    if path is None:
        yield lambda entry: None
        return
    with growing_file(path) as file:
        separator = f"{before}[\n"

        def add(entry: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry, ensure_ascii=False))
            separator = ",\n"

        try:
            yield add
        finally:
            end = "\n]" if separator == ",\n" else f"{before}[]"
            file.write(f"{end}{after}\n")
