"""Detection on images."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nets.inference.detector import Detector
from nets.inference.drawing import draw_detections
from utils.core.errors import UserError
from utils.core.files import OverwriteError, claimed_outputs
from utils.core.images import write_image
from utils.core.progress import progress_bar
from utils.engine.outputs import ImageTarget, Summary, json_list, output_file
from utils.engine.sources import ImageSource
from utils.visualization.window import Window


def predict_images(
    detector: Detector,
    images: Sequence[ImageSource],
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
    from_folder: bool = False,
) -> Summary:
    """Detect on images and write them with boxes.

    Args:
        detector: the detector to run.
        images: the images, read one by one.
        out: folder, or for a single image a file; None: `runs/predict`, then `runs/predict-2`, ...
            In a folder nothing is overwritten: a name in use gets "-2".
        json_path: file for a list of `Detections.to_json()`.
        show: show each image in a window: any key for the next, q or Esc quits.
        from_folder: names are relative paths, recreated below `out`, and images that cannot be
            read are reported and skipped; else they are an error.

    Raises:
        UserError: no image could be read, or an output cannot be written.
    """
    summary = Summary("images")
    start = time.perf_counter()
    target = ImageTarget(out, len(images), keep_folders=from_folder)
    window = Window("detections") if show else None
    claims = claimed_outputs(("--json", json_path), ("--out", output_file(out)))
    with claims, json_list(json_path) as add_json:
        for source in progress_bar(images, desc="predict", unit="image", leave=True):
            image = _read(source, summary) if from_folder else source.read()
            if image is None:
                continue
            detections = replace(detector(image), image=source.name)
            summary.add(detections)
            add_json(detections.to_json())
            drawn = draw_detections(image, detections)
            write_image(target(source.name), drawn)
            if window and not window.show(drawn, wait=0):
                summary.stopped = True
                break
    if not summary.done:
        first = (summary.skipped or ["none"])[0]
        raise UserError(f"none of {len(images)} images could be read; the first: {first}")
    summary.out = target.out
    summary.seconds = time.perf_counter() - start
    return summary


def _read(source: ImageSource, summary: Summary) -> np.ndarray | None:
    """Read an image; one that cannot be read is reported and noted as skipped."""
    try:
        return source.read()
    except OverwriteError:
        raise
    except UserError as error:
        summary.skipped.append(str(error))
        tqdm.write(f"skipped {source.name}: {error}", file=sys.stderr)
        return None
