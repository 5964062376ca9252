"""Detection on images, folders and video: what `predict.py` calls.

An image is a pair of a name and a function that reads it, so that files and drawn datasets are treated alike.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from nets.inference.detections import Detections
from nets.inference.streaming import detect_stream
from utils.core.errors import UserError, nearest
from utils.core.images import IMAGE_SUFFIXES, read_image
from utils.core.progress import progress_bar
from utils.core.schema import Config
from utils.engine.outputs import PictureTarget, json_list, video_target
from utils.visualization.boxes import draw_detections, write_image
from utils.visualization.video import VideoSink, open_video
from utils.visualization.video_pipeline import process_video
from utils.visualization.window import Window

Picture = tuple[
    str, Callable[[], np.ndarray]
]  # name as reported (a path, relative or not); reader -> RGB uint8


class Model(Protocol):
    """What is needed of `nets.load_model(...)`: RGB uint8 `(h, w, 3)` in, `Detections` out.

    `input_size` is (height, width). Optional, for `measure_fps`: `backend`, the network and its decoding alone, which
    takes uint8 `(1, H, W, 3)`.
    """

    config: Config
    input_size: tuple[int, int]

    def __call__(self, image: Any, /) -> Any: ...


@dataclass
class Summary:
    """What was done; `str()` is the report for the terminal.

    Attributes:
        unit: "images" or "frames". done: how many of them. seconds: wall time.
        counts: detections per class name. skipped: one line for each image that could not be read.
        out: the folder or file that was written. stopped: the user ended it early.
    """

    unit: str
    done: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    out: Path | None = None
    stopped: bool = False

    def __str__(self) -> str:
        rate = self.done / max(self.seconds, 1e-9)
        lines = [
            f"{self.done} {self.unit}, {sum(self.counts.values())} objects, {self.seconds:.1f} s ({rate:.1f}/s)"
        ]
        width = max((len(name) for name in self.counts), default=0)
        lines += [f"  {name:<{width}}  {count}" for name, count in self.counts.most_common()]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} that could not be read")
        if self.out:
            lines.append(f"written: {self.out}")
        return "\n".join(lines)


def limit_changes(score: float | None, nms_iou: float | None) -> dict[str, float]:
    """Changes of the configuration to another lowest score and NMS threshold, 0..1; None keeps the configured one.

    Raises:
        UserError: a value outside 0..1.
    """
    given = {
        key: value for key, value in (("score", score), ("nms_iou", nms_iou)) if value is not None
    }
    for key, value in given.items():
        if not 0 <= value <= 1:
            raise UserError(
                f"--{key.replace('_', '-')}: expected a number from 0 to 1, got {value}"
            )
    return {f"predict.{key}": value for key, value in given.items()}


def one_source(sources: Sequence[str], mode: str) -> str:
    """The only source.

    Raises:
        UserError: there are several.
    """
    if len(sources) > 1:
        raise UserError(
            f"--source: --mode {mode} takes one, got {len(sources)}; --mode image takes several"
        )
    return sources[0]


def file_pictures(paths: Sequence[str | Path]) -> list[Picture]:
    """Image files by path, in the order given.

    Raises:
        UserError: a path does not exist or is a folder.
    """
    for path in map(Path, paths):
        if path.is_dir():
            raise UserError(f"--source {path} is a folder: use --mode dir for all images in it")
        if not path.is_file():
            names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            hint = nearest(path.name, names) if names else ""
            raise UserError(
                f"--source {path}: no such file{hint if hint.startswith('; did') else ''}"
            )
    return [(str(path), partial(read_image, path)) for path in paths]


def folder_pictures(folder: str | Path) -> list[Picture]:
    """All images in a folder and its sub-folders, by their relative path, sorted; upper-case suffixes too.

    Raises:
        UserError: no such folder, or no images in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file: use --mode image or video" if folder.exists() else "does not exist"
        raise UserError(f"--source {folder} {what}; expected a folder of images")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not files:
        raise UserError(f"--source {folder}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [(path.relative_to(folder).as_posix(), partial(read_image, path)) for path in files]


def predict_images(
    model: Model,
    pictures: Sequence[Picture],
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    save: bool = True,
    strict: bool = True,
    show: bool = False,
    keep_folders: bool = False,
) -> Summary:
    """Detect on images; write them with boxes, and a JSON list of `Detections.to_json()`.

    Args:
        out: folder, or for one image a file; none: `runs/predict`, then `runs/predict-2`, ...
            In a folder a name that is taken gets "-2", so that nothing is overwritten.
        save: write the pictures. keep_folders: names are relative paths, their folders are kept below `out`.
        show: a window an image, any key for the next, q or Esc ends.
        strict: an image that cannot be read is an error; else it is reported, skipped and counted.

    Raises:
        UserError: no image could be read (or, with `strict`, one of them), or an output cannot be written.
    """
    summary, start = Summary("images"), time.perf_counter()
    with ExitStack() as stack:
        add = stack.enter_context(json_list(json_path))
        window = Window("detections") if show else None
        target = PictureTarget(out, len(pictures), keep_folders) if save else None
        for name, read in progress_bar(pictures, desc="predict", unit="image", leave=True):
            image = _read(name, read, strict, summary)
            if image is None:
                continue
            detections: Detections = replace(model(image), image=name)
            summary.done += 1
            summary.counts.update(detections.names[int(label)] for label in detections.labels)
            add(detections.to_json())
            if target or window:
                drawn = draw_detections(image, detections)
            if target:
                write_image(target(name), drawn)
                summary.out = target.out
            if window and not window.show(drawn, wait=0):
                summary.stopped = True
                break
    if not summary.done:
        raise UserError(
            f"none of {len(pictures)} images could be read; the first: {(summary.skipped or ['none'])[0]}"
        )
    summary.seconds = time.perf_counter() - start
    return summary


def predict_folder(
    model: Model,
    folder: str | Path,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    save: bool = True,
    show: bool = False,
) -> Summary:
    """`predict_images` on a folder and its sub-folders; images that cannot be read are reported and skipped."""
    return predict_images(
        model, folder_pictures(folder), out, json_path, save, False, show, keep_folders=True
    )


def predict_video(
    model: Model,
    source: str | int | Path,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
) -> Summary:
    """Detect on a video file, stream or camera; write the video with boxes and a JSON entry for every frame.

    Args:
        out: video file, or a folder for "<name>.mp4"; none: in `runs/predict`, then `runs/predict-2`, ...
        json_path: entries as for images, with "image": "<video>#<frame>" and "frame": index from 0.

    Raises:
        UserError: the source cannot be opened, or an output cannot be written or is the source itself.
    """
    with ExitStack() as stack:
        video = stack.enter_context(open_video(source))
        if video.note:
            tqdm.write(f"note: {video.note}", file=sys.stderr)
        path = video_target(out, video.name, source)
        add = stack.enter_context(json_list(json_path))
        sink = stack.enter_context(VideoSink(path, video.fps, (video.width, video.height)))
        bar = stack.enter_context(
            progress_bar(desc=video.name, total=video.frame_count, unit="frame", leave=True)
        )

        def on_frame(index: int, detections: Detections) -> None:
            add({**replace(detections, image=f"{video.name}#{index}").to_json(), "frame": index})
            bar.update()

        each = (
            partial(map, model) if video.is_camera else partial(detect_stream, model)
        )  # a camera's must not come late
        result = process_video(video, sink, each, on_frame, window=show)
    if video.frame_count and result.frames < 0.9 * video.frame_count and not result.stopped:
        tqdm.write(
            f"note: {video.name}: {result.frames} of {video.frame_count} frames could be read; is it cut off?",
            file=sys.stderr,
        )
    return Summary("frames", result.frames, result.seconds, result.counts, [], path, result.stopped)


def _read(
    name: str, read: Callable[[], np.ndarray], strict: bool, summary: Summary
) -> np.ndarray | None:
    try:
        return read()
    except UserError as error:
        if strict:
            raise
        summary.skipped.append(str(error))
        tqdm.write(f"skipped {name}: {error}", file=sys.stderr)
        return None
