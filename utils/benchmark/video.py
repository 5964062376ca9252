"""Video: each stage alone, and the pipeline in which they overlap."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from nets.inference.detections import Detections
from nets.inference.streaming import detect_stream
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section, Target, per_second
from utils.core.timing import Clock, Stat, interleave, timed
from utils.visualization.boxes import draw_detections
from utils.visualization.video import VideoSink, open_video
from utils.visualization.video_pipeline import PredictFrames, process_video

FRAMES, QUICK, FULL = 200, 12, 10_000
SIZE = (640, 480)  # width, height
FPS = 25.0
EFFICIENCY = 90.0  # percent of the slowest stage's own rate
GROWTH = 5.0  # percent that memory may grow from a long video's first half to its second
SAMPLES = 200  # of the memory, over a long video
BLUR = 2.0  # pixels
BOXES = 10  # drawn in each frame where the network is not trained


def section(bench: Bench) -> Section:
    """Measure."""
    count = QUICK if bench.settings.quick else FRAMES
    clip = write_clip(bench.folder / "clip.mp4", count)
    predict = predictor(bench)
    times = interleave(
        _clocks(clip, bench.folder / "out.mp4", predict), bench.settings.effort, "video"
    )
    titles = {
        "decode": "decode",
        "detect": "detect",
        "render": "draw and encode",
        "pipeline": "all, overlapping",
    }
    rows = [
        Row(f"video.{key}", title, per_second(times[key], count), "frames/s")
        for key, title in titles.items()
    ]
    slowest = np.max([times["decode"], times["detect"], times["render"]], axis=0)
    share = Stat.of(100 * slowest / times["pipeline"])
    rows.append(
        Row("video.efficiency", "of the slowest stage alone", share, "%", target=Target(EFFICIENCY))
    )
    notes = [
        f"{count} frames of {SIZE[0]}x{SIZE[1]}; stages share the CPU: where they load it, the sum counts"
    ]
    if bench.settings.full:
        rows += _long(bench, predict, notes)
    return Section("video", "frames a second, each stage alone and the whole", rows, notes)


def predictor(bench: Bench) -> PredictFrames:
    """The detector, on frame after frame; where it is not trained and finds nothing, with boxes made up for drawing."""
    detector = bench.detector()
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (BOXES, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(40, 200, (BOXES, 2))], 1).astype(
        np.float32
    )
    labels, scores = (
        np.arange(BOXES) % len(detector.names),
        np.linspace(0.9, 0.3, BOXES, dtype=np.float32),
    )

    def predict(frames: Iterable[np.ndarray]) -> Iterator[Detections]:
        for found in detect_stream(detector, frames):
            yield (
                found
                if bench.settings.weights
                else replace(found, boxes=boxes, labels=labels, scores=scores)
            )

    return predict


def _clocks(clip: Path, out: Path, predict: PredictFrames) -> dict[str, Clock]:
    frames = decode(clip)
    found = list(predict(frames))
    return {
        "decode": timed(lambda: decode(clip)),
        "detect": timed(lambda: list(predict(frames))),
        "render": timed(lambda: render(out, frames, found)),
        "pipeline": timed(lambda: pipeline(clip, out, predict)),
    }


def decode(clip: Path) -> list[np.ndarray]:
    """All frames."""
    with open_video(clip) as source:
        return list(source)


def render(out: Path, frames: list[np.ndarray], found: list[Detections]) -> None:
    """Draw and encode."""
    with VideoSink(out, FPS, SIZE) as sink:
        for frame, detections in zip(frames, found, strict=True):
            sink.write(draw_detections(frame, detections))


def pipeline(
    clip: Path,
    out: Path,
    predict: PredictFrames,
    on_frame: Callable[[int, Detections], None] | None = None,
) -> int:
    """What `predict.py --mode video` does; the number of frames."""
    with open_video(clip) as source, VideoSink(out, FPS, SIZE) as sink:
        return process_video(source, sink, predict, on_frame).frames


def write_clip(path: Path, count: int) -> Path:
    """Bright bars that move over a soft texture: pixels that know nothing of their neighbors, as no camera gives them,
    would take an encoder twice the time."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), BLUR
    )
    with VideoSink(path, FPS, SIZE) as sink:
        for index in range(count):
            frame = np.roll(texture, index, axis=1)
            left = 7 * index % (width - 80)
            frame[100:300, left : left + 80] = 200 + index % 50
            sink.write(frame)
    return path


def _long(bench: Bench, predict: PredictFrames, notes: list[str]) -> list[Row]:
    """Memory over a long video."""
    if resident() is None:
        notes.append("memory left out: this system has no /proc/self/statm")
        return []
    clip = write_clip(bench.folder / "long.mp4", FULL)
    samples: list[float] = []

    def sample(index: int, _: Detections) -> None:
        if index % (FULL // SAMPLES) == 0:
            samples.append(resident() or 0.0)

    clock = timed(lambda: pipeline(clip, bench.folder / "out.mp4", predict, sample))
    rate = per_second([clock()], FULL)
    growth = Stat.of([memory_growth(samples)])
    return [
        Row("video.long", f"all, {FULL:,} frames", rate, "frames/s"),
        Row("video.memory", f"memory over {FULL:,} frames", Stat.of(samples), "MiB"),
        Row(
            "video.memory_growth",
            "second half over first",
            growth,
            "%",
            target=Target(GROWTH, at_least=False),
        ),
    ]


def memory_growth(samples: list[float]) -> float:
    """Percent that the highest of the second half lies above the highest of the first."""
    middle = len(samples) // 2
    return 100 * (max(samples[middle:]) / max(samples[:middle]) - 1)


def resident() -> float | None:
    """Memory that this process has in use, MiB; none where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
