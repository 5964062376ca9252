"""Detection on images."""

import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nets.inference.detector import Detector
from nets.inference.streaming import detect_stream, in_order, with_detections
from utils.core.errors import UserError
from utils.core.outputs import OverwriteError, claimed_outputs
from utils.core.progress import progress_bar
from utils.engine.image_outputs import ImageSaver, Job, PredictedImage
from utils.engine.outputs import Summary, json_list, output_file
from utils.engine.sources import ImageSource
from utils.visualization.window import Window

READERS = 2  # threads that read and decode images

ReadImage = tuple[int, ImageSource, np.ndarray]  # with its position among the sources


def predict_images(
    detector: Detector,
    images: Sequence[ImageSource],
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
    save: Sequence[str] = ("image",),
    save_conf: bool = False,
) -> Summary:
    """Detect on images and write the results.

    Images are decoded ahead, and several are processed at once; see `detect_stream`.

    Args:
        detector: the detector to run.
        images: the images. Of those found in a folder, names are relative paths, recreated below
            `out`, and images that cannot be read are reported and skipped; else they are an error.
        out: folder, or for a single image a file; None: `runs/predict`, then `runs/predict-2`, ...
            In a folder nothing is overwritten: a name in use gets "-2".
        json_path: file for a list of `Detections.to_json()`.
        show: show each image in a window: any key for the next, q or Esc quits.
        save: what to write to `out`, of `utils.engine.image_outputs.FORMATS`.
        save_conf: txt: add the score to each line.

    Raises:
        UserError: no image could be read, or an output cannot be written.
    """
    summary = Summary("images")
    start = time.perf_counter()
    saver = ImageSaver(out, save, Job(images, detector, save_conf))
    window = Window("detections") if show else None
    detect = partial(detect_stream, detector)
    claims = claimed_outputs(("--json", json_path), ("--out", output_file(out)))
    with (
        claims,
        json_list(json_path) as add_json,
        saver,
        closing(_read_all(images, summary)) as read,
        closing(with_detections(detect, read, lambda item: item[2])) as detected,
    ):
        for (index, source, image), detections in detected:
            one = PredictedImage(index, image, replace(detections, image=source.name))
            summary.add(one.detections)
            add_json(one.detections.to_json())
            saver(one)
            if window and not window.show(one.drawn, wait=0):
                summary.stopped = True
                break
    if not summary.done:
        first = (summary.skipped or ["none"])[0]
        raise UserError(f"none of {len(images)} images could be read; the first: {first}")
    summary.out = saver.out
    summary.notes = saver.notes()
    summary.seconds = time.perf_counter() - start
    return summary


def _read_all(images: Sequence[ImageSource], summary: Summary) -> Generator[ReadImage, None, None]:
    """Read images a few ahead, in order; those of a folder that cannot be read are skipped."""
    bar = progress_bar(images, desc="predict", unit="image", leave=True)
    with ThreadPoolExecutor(READERS, "read") as pool:
        results = in_order(lambda source: pool.submit(_read, source), bar, READERS)
        for index, (source, image) in enumerate(zip(images, results, strict=True)):
            if isinstance(image, np.ndarray):
                yield index, source, image
                continue
            if not source.from_folder:
                raise image
            summary.skipped.append(str(image))
            tqdm.write(f"skipped {source.name}: {image}", file=sys.stderr)


def _read(source: ImageSource) -> np.ndarray | UserError:
    """An image, or why it cannot be read."""
    try:
        return source.read()
    except OverwriteError:
        raise
    except UserError as error:
        return error
