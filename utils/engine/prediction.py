"""Detection on images, folders and videos; implements `predict.py`."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.streaming import detect_stream
from utils.core.errors import UserError
from utils.core.files import OverwriteError, claimed_outputs
from utils.core.images import write_image
from utils.core.progress import progress_bar
from utils.engine.detectors import open_detector
from utils.engine.explanation import explain_images, parse_focus
from utils.engine.outputs import ImageTarget, Summary, json_list, output_file, video_target
from utils.engine.runs import find_weights
from utils.engine.sources import ImageSource, image_files, image_folder, validation_images
from utils.engine.speed import Speed, measure_fps
from utils.visualization.boxes import draw_detections
from utils.visualization.video import STREAM_TIMEOUT, VideoSink, open_video
from utils.visualization.video_pipeline import process_video
from utils.visualization.window import Window

VALIDATION_IMAGES = 16  # used if no source is given
EXPLAINED_IMAGES = 4
# Options that a mode has no use for; these are named to the user
FOR_HEATMAPS = ("site", "point", "class_name")
UNUSED = {
    "image": FOR_HEATMAPS,
    "dir": FOR_HEATMAPS,
    "video": FOR_HEATMAPS,
    "fps": (*FOR_HEATMAPS, "out", "json"),
    "heatmap": ("backend", "precision"),  # they need gradients, and small ones float32
}


@dataclass(frozen=True)
class PredictOptions:
    """The command line of `predict.py`; None leaves the run's own setting.

    Attributes:
        mode: one of `MODES`.
        source: files, a folder, a stream or a camera number, as the mode takes them.
        weights: file or run; None: the newest run.
        out: folder or file to write to; None: `runs/predict`, `runs/predict-2`, ...
        json: file for the detections.
        score: minimum score, 0..1.
        nms_iou: IoU threshold of NMS, 0..1.
        device: device to run on.
        backend: inference backend.
        precision: numerical precision.
        show: open a window.
        site: heatmap: the only site shown.
        point: heatmap: "x,y", pixels.
        class_name: heatmap: the class to explain.
        timeout: video: seconds to wait for a stream to open, and for each of its frames.
    """

    mode: str = "image"
    source: Sequence[str] | None = None
    weights: str | None = None
    out: str | None = None
    json: str | None = None
    score: float | None = None
    nms_iou: float | None = None
    device: str | None = None
    backend: str | None = None
    precision: str | None = None
    show: bool = False
    site: str | None = None
    point: str | None = None
    class_name: str | None = None
    timeout: float = STREAM_TIMEOUT


def predict(options: PredictOptions) -> Summary | Speed:
    """Run the selected mode; `str()` of the result is the report.

    Raises:
        UserError: an option is invalid, an input cannot be read, or an output cannot be written.
    """
    if options.mode not in ("image", "heatmap") and len(options.source or ()) > 1:
        raise UserError(
            f"--source: --mode {options.mode} takes one, got {len(options.source or ())}; "
            "--mode image takes several"
        )
    with claimed_outputs(("--json", options.json), ("--out", output_file(options.out))):
        detector = open_detector(
            find_weights(options.weights),
            _limit_changes(options),
            device=options.device,
            backend="torch" if options.mode == "heatmap" else options.backend,
            precision="fp32" if options.mode == "heatmap" else options.precision,
        )
        result = MODES[options.mode](detector, options)
    for field in UNUSED[options.mode]:
        if getattr(options, field) is not None:
            option = "--" + field.removesuffix("_name")
            print(f"note: {option}: not used in --mode {options.mode}", file=sys.stderr)
    return result


def _limit_changes(options: PredictOptions) -> dict[str, float]:
    """The thresholds given on the command line, as configuration changes."""
    changes = {}
    for key, value in (("score", options.score), ("nms_iou", options.nms_iou)):
        if value is None:
            continue
        if not 0 <= value <= 1:
            option = f"--{key.replace('_', '-')}"
            raise UserError(f"{option}: expected a number from 0 to 1, got {value}")
        changes[f"predict.{key}"] = value
    return changes


def _images(detector: Detector, options: PredictOptions, limit: int) -> list[ImageSource]:
    """The source's image files, or `limit` validation images if none is given."""
    if options.source:
        return image_files(options.source)
    return validation_images(detector.config, limit)


def _image_mode(detector: Detector, options: PredictOptions) -> Summary:
    images = _images(detector, options, VALIDATION_IMAGES)
    return predict_images(detector, images, options.out, options.json, options.show)


def _dir_mode(detector: Detector, options: PredictOptions) -> Summary:
    if not options.source:
        return _image_mode(detector, options)
    images = image_folder(options.source[0])
    return predict_images(
        detector, images, options.out, options.json, options.show, from_folder=True
    )


def _video_mode(detector: Detector, options: PredictOptions) -> Summary:
    source = options.source[0] if options.source else 0
    return predict_video(detector, source, options.out, options.json, options.show, options.timeout)


def _fps_mode(detector: Detector, options: PredictOptions) -> Speed:
    return measure_fps(detector, _images(detector, options, limit=1)[0].read())


def _heatmap_mode(detector: Detector, options: PredictOptions) -> Summary:
    images = _images(detector, options, EXPLAINED_IMAGES)
    focus = parse_focus(detector, options.site, options.point, options.class_name)
    return explain_images(detector, images, focus, options.out, options.json, options.show)


MODES: dict[str, Callable[[Detector, PredictOptions], Summary | Speed]] = {
    "image": _image_mode,
    "dir": _dir_mode,
    "video": _video_mode,
    "fps": _fps_mode,
    "heatmap": _heatmap_mode,
}


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


def predict_video(
    detector: Detector,
    source: str | int | Path,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
    timeout: float = STREAM_TIMEOUT,
) -> Summary:
    """Detect on a video and write it with boxes.

    Args:
        detector: the detector to run.
        source: a video file, the address of a stream, or the number of a camera.
        out: video file, or a folder for "<name>.mp4"; None: `runs/predict`, `runs/predict-2`, ...
        json_path: file for a list with one entry per frame, with "image": "<video>#<frame>" and
            "frame": index from 0.
        show: show the frames in a window; q or Esc quits.
        timeout: seconds to wait for a stream to open, and for each of its frames.

    Raises:
        UserError: the source cannot be opened, or an output cannot be written or is the source.
    """
    with ExitStack() as stack:
        stack.enter_context(claimed_outputs(("--json", json_path), ("--out", output_file(out))))
        video = stack.enter_context(open_video(source, timeout))
        if video.note:
            tqdm.write(f"note: {video.note}", file=sys.stderr)
        path = video_target(out, video.name)
        add_json = stack.enter_context(json_list(json_path))
        sink = stack.enter_context(VideoSink(path, video.fps, (video.width, video.height)))
        bar = stack.enter_context(
            progress_bar(desc=video.name, total=video.frame_count, unit="frame", leave=True)
        )

        def on_frame(index: int, detections: Detections) -> None:
            named = replace(detections, image=f"{video.name}#{index}")
            add_json({**named.to_json(), "frame": index})
            bar.update()

        # streaming works a few frames behind, which is too late for a camera
        detect = partial(map, detector) if video.is_camera else partial(detect_stream, detector)
        result = process_video(video, sink, detect, on_frame, window=show)
    if video.frame_count and result.frames < 0.9 * video.frame_count and not result.stopped:
        tqdm.write(
            f"note: {video.name}: {result.frames} of {video.frame_count} frames could be read; "
            "is it cut off?",
            file=sys.stderr,
        )
    return Summary(
        unit="frames",
        done=result.frames,
        seconds=result.seconds,
        counts=result.counts,
        out=path,
        stopped=result.stopped,
    )
