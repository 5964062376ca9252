"""Video: each stage alone, and the pipeline in which they overlap."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections
from nets.inference.streaming import detect_stream
from utils.benchmark.results import Case, Measurement, ResultTable, Target
from utils.benchmark.session import BenchmarkSession
from utils.core.timing import Stat, milliseconds, timed
from utils.visualization.video import VideoSink, open_video
from utils.visualization.video_pipeline import PredictFrames, process_video

SIZE = (640, 480)  # width, height
FPS = 25.0
LONG = 10_000  # frames of the video for which memory is measured
MEMORY_SAMPLES = 200  # over that video
EFFICIENCY_TARGET = 90.0  # percent of the slowest stage's own rate
GROWTH_TARGET = 5.0  # percent that memory may grow from the first half to the second
BOXES = 10  # drawn in each frame if the network is not trained


def video_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    count = session.scaled(200, quick=12)
    clip, out = write_clip(session.folder / "clip.mp4", count), session.folder / "out.mp4"
    predict = make_predict(session)
    frames = decode(clip)
    detections = list(predict(frames))
    stages: list[tuple[str, str, Callable[[], object]]] = [
        ("decode", "decode", partial(decode, clip)),
        ("detect", "detect", lambda: list(predict(frames))),
        ("render", "draw and encode", partial(render, out, frames, detections)),
        ("pipeline", "all, overlapping", partial(run_pipeline, clip, out, predict)),
    ]
    cases = [Case(key, what, timed(call), count, "frames/s") for key, what, call in stages]
    rows, times = session.measure("video", cases)
    *alone, together = times.values()
    share = Stat.of(100 * np.max(alone, axis=0) / together)
    what, target = "of the slowest stage alone", Target(EFFICIENCY_TARGET)
    rows.append(Measurement("efficiency", what, "%", share, target=target))
    notes = [
        f"{count} frames of {SIZE[0]}x{SIZE[1]}; the stages share the CPU: if it is the limit, "
        "their sum counts"
    ]
    if session.options.full and resident_mib() is None:
        notes.append("memory left out: this system has no /proc/self/statm")
    elif session.options.full:
        rows += _long_video(session, predict)
    return ResultTable("video", "frames per second, each stage alone and all", rows, notes)


def make_predict(session: BenchmarkSession) -> PredictFrames:
    """The detector on consecutive frames; boxes to draw are made up if it is not trained."""
    detector = session.detector()
    if session.options.weights:
        return partial(detect_stream, detector)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (BOXES, 2))
    boxes = np.hstack([corners, corners + rng.uniform(40, 200, (BOXES, 2))]).astype(np.float32)
    labels = np.arange(BOXES) % len(detector.names)
    scores = np.linspace(0.9, 0.3, BOXES, dtype=np.float32)

    def predict(frames: Iterable[np.ndarray]) -> Iterator[Detections]:
        for detections in detect_stream(detector, frames):
            yield replace(detections, boxes=boxes, labels=labels, scores=scores)

    return predict


def decode(clip: Path) -> list[np.ndarray]:
    """All frames."""
    with open_video(clip) as source:
        return list(source)


def render(out: Path, frames: list[np.ndarray], detections: list[Detections]) -> None:
    """Draw and encode."""
    with VideoSink(out, FPS, SIZE) as sink:
        for frame, own in zip(frames, detections, strict=True):
            sink.write(draw_detections(frame, own))


def run_pipeline(
    clip: Path,
    out: Path,
    predict: PredictFrames,
    on_frame: Callable[[int, Detections], None] | None = None,
) -> int:
    """Do what `predict.py --mode video` does; returns the number of frames."""
    with open_video(clip) as source, VideoSink(out, FPS, SIZE) as sink:
        return process_video(source, sink, predict, on_frame).frames


def write_clip(path: Path, count: int) -> Path:
    """Write a video of bright bars that move over a soft texture.

    Neighboring pixels are similar, as in a camera's: noise would double the encoding time.
    """
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.0)
    with VideoSink(path, FPS, SIZE) as sink:
        for index in range(count):
            frame = np.roll(texture, index, axis=1)
            left = 7 * index % (width - 80)
            frame[100:300, left : left + 80] = 200 + index % 50
            sink.write(frame)
    return path


def _long_video(session: BenchmarkSession, predict: PredictFrames) -> list[Measurement]:
    """Speed and memory over a long video."""
    clip, out = write_clip(session.folder / "long.mp4", LONG), session.folder / "out.mp4"
    memory: list[float] = []

    def sample_memory(index: int, _: Detections) -> None:
        if index % (LONG // MEMORY_SAMPLES) == 0:
            memory.append(resident_mib() or 0.0)

    seconds = milliseconds(lambda: run_pipeline(clip, out, predict, sample_memory)) / 1000
    rate, growth = Stat.of([LONG / seconds]), Stat.of([memory_growth(memory)])
    target = Target(GROWTH_TARGET, at_least=False)
    what = "second half over first"
    return [
        Measurement("long", f"all, {LONG:,} frames", "frames/s", rate),
        Measurement("memory", f"memory over {LONG:,} frames", "MiB", Stat.of(memory)),
        Measurement("memory_growth", what, "%", growth, target=target),
    ]


def memory_growth(memory: list[float]) -> float:
    """Percent by which the second half's maximum exceeds the first half's."""
    middle = len(memory) // 2
    return 100 * (max(memory[middle:]) / max(memory[:middle]) - 1)


def resident_mib() -> float | None:
    """Memory used by this process, in MiB; None if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
