"""Detection on images, folders and videos; implements `predict.py`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nets.inference.detections import class_labels
from nets.inference.detector import Detector
from nets.inference.tiling import make_tiling
from utils.core.errors import UserError
from utils.core.outputs import claimed_outputs
from utils.core.overrides import parse_overrides
from utils.engine.detectors import check_class_names, describe, open_detector
from utils.engine.explanation import explain_images, parse_focus
from utils.engine.image_outputs import check_formats
from utils.engine.image_prediction import predict_images
from utils.engine.outputs import Summary, output_file
from utils.engine.runs import OUTPUT, find_weights
from utils.engine.sources import (
    ImageSource,
    find_mode,
    image_files,
    image_folder,
    image_sources,
    validation_images,
)
from utils.engine.speed import Speed, measure_fps
from utils.engine.video_prediction import VideoOptions, predict_video
from utils.visualization.video import STREAM_TIMEOUT

VALIDATION_IMAGES = 16  # used if no source is given
EXPLAINED_IMAGES = 4
# Options that a mode has no use for; these are named to the user
FOR_HEATMAPS = ("site", "point", "class_name")
FOR_VIDEOS = ("reconnect", "every", "track", "line")
UNUSED = {
    "image": (*FOR_HEATMAPS, *FOR_VIDEOS),
    "dir": (*FOR_HEATMAPS, *FOR_VIDEOS),
    "video": FOR_HEATMAPS,
    "fps": (*FOR_HEATMAPS, *FOR_VIDEOS, "out", "json", "save", "classes"),
    # heatmaps need gradients, and small ones float32
    "heatmap": ("backend", "precision", "save", "classes", "tile", *FOR_VIDEOS),
}


@dataclass(frozen=True)
class PredictOptions:
    """The command line of `predict.py`; None leaves the run's own setting.

    Attributes:
        mode: one of `MODES`; None: as the source is.
        source: files, folders, a stream or a camera number, as the mode takes them.
        weights: file or run; None: the newest run.
        cfg: the `.cfg` of Darknet weights; None: the one next to them, if any.
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
        classes: names of the classes to detect; None: all.
        save: what to write to `out`, of `utils.engine.image_outputs.FORMATS`; None: images or the
            video.
        save_conf: txt: add the score to each line.
        tile: side of the tiles in which larger images are detected, pixels; None: no tiles.
        overlap: share of a tile's side that the next one repeats; None: 0.2.
        overrides: `KEY=VALUE` words, which change the configuration of the weights.
        reconnect: video: seconds to go on trying when a stream is lost.
        every: video: only every such frame goes through the detector.
        track: video: name of a tracker.
        line: video: "x1,y1,x2,y2", pixels; objects that cross it are counted.
    """

    mode: str | None = None
    source: Sequence[str] | None = None
    weights: str | None = None
    cfg: str | None = None
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
    classes: Sequence[str] | None = None
    save: Sequence[str] | None = None
    save_conf: bool = False
    tile: int | None = None
    overlap: float | None = None
    overrides: Sequence[str] = ()
    reconnect: float | None = None
    every: int | None = None
    track: str | None = None
    line: str | None = None


def predict(options: PredictOptions) -> Summary | Speed:
    """Run the selected mode; `str()` of the result is the report.

    Raises:
        UserError: an option is invalid, an input cannot be read, or an output cannot be written.
    """
    mode = options.mode or find_mode(options.source or ())
    _check_options(mode, options)
    heatmap = mode == "heatmap"
    changes = {**parse_overrides(options.overrides), **_limit_changes(options)}
    with claimed_outputs(("--json", options.json), ("--out", output_file(options.out))):
        path = find_weights(options.weights, str(changes.get("output", OUTPUT)))
        detector = open_detector(
            path,
            changes,
            cfg=options.cfg,
            device=options.device,
            backend="torch" if heatmap else options.backend,
            precision="fp32" if heatmap else options.precision,
        )
        check_class_names(detector, changes)
        if not heatmap:
            detector.tiling = make_tiling(options.tile, options.overlap)
            detector.classes = _known_classes(detector, options.classes)
        score = detector.config.predict.score
        print(f"{path}: {describe(detector)}, score at least {score:g}")
        result = MODES[mode](detector, options)
    if isinstance(result, Summary) and not result.counts:
        result.notes.append(f"nothing scores {score:g}; a lower --score shows what is less certain")
    for field in UNUSED[mode]:
        if getattr(options, field) is not None:
            option = "--" + field.removesuffix("_name")
            print(f"note: {option}: not used in --mode {mode}", file=sys.stderr)
    return result


def _check_options(mode: str, options: PredictOptions) -> None:
    """Refuse sources and formats that the mode cannot take."""
    count = len(options.source or ())
    if options.mode in ("dir", "fps") and count > 1:
        raise UserError(
            f"--source: --mode {mode} takes one, got {count}; --mode image and video take several"
        )
    formats = check_formats(options.save or ())
    if mode == "video" and formats not in ([], ["image"]):
        raise UserError(
            f"--save {' '.join(formats)}: a video can only be saved as image, which means the "
            "video with boxes; --json FILE writes the detections of its frames"
        )
    if options.save_conf and "txt" not in formats:
        raise UserError("--save-conf: only with --save txt")


def _known_classes(detector: Detector, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """The option's classes, all of which the detector knows."""
    if classes is None:
        return None
    class_labels(classes, detector.names, "--classes")
    return tuple(classes)


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
    if options.mode is None and options.source:
        images = image_sources(options.source)
    else:
        images = _images(detector, options, VALIDATION_IMAGES)
    return _predict_images(detector, images, options)


def _dir_mode(detector: Detector, options: PredictOptions) -> Summary:
    if not options.source:
        return _image_mode(detector, options)
    return _predict_images(detector, image_folder(options.source[0]), options)


def _predict_images(
    detector: Detector, images: Sequence[ImageSource], options: PredictOptions
) -> Summary:
    formats = options.save or ["image"]
    return predict_images(
        detector, images, options.out, options.json, options.show, formats, options.save_conf
    )


def _video_mode(detector: Detector, options: PredictOptions) -> Summary:
    given = {name: getattr(options, name) for name in ("timeout", *FOR_VIDEOS)}
    video = VideoOptions(**{name: value for name, value in given.items() if value is not None})
    source = options.source or (0,)
    return predict_video(detector, source, options.out, options.json, options.show, video)


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
