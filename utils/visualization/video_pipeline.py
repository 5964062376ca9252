"""Detection in videos: decoding, detection and rendering overlap in three threads.

Every frame of a file is processed, in order, and keeps its time. Of a camera, always the newest
frame is processed, and the recording keeps real time. At most `QUEUE_SIZE` frames wait between two
stages, so memory use is constant.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections
from nets.inference.streaming import with_detections
from utils.core.bounded_queue import BoundedQueue
from utils.visualization.video import VideoSink, VideoSource
from utils.visualization.window import Window

QUEUE_SIZE = 4  # enough to even out the durations of the stages

PredictFrames = Callable[[Iterable[np.ndarray]], Iterable[Detections]]
OnFrame = Callable[[int, Detections], None]
Draw = Callable[[np.ndarray, Detections], np.ndarray]


@dataclass
class VideoResult:
    """Summary of a processed video.

    Attributes:
        frames: number of frames.
        counts: detections by class name, in the frames that went through the detector.
        seconds: wall-clock time.
        stopped: whether the user stopped it.
    """

    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: bool = False

    def add(self, detections: Detections) -> None:
        self.counts += detections.per_class()


@dataclass(frozen=True)
class _Frame:
    """A decoded frame.

    Attributes:
        image: RGB uint8 `(h, w, 3)`.
        seconds: when it is shown, since the first frame; None: after the one before.
    """

    image: np.ndarray
    seconds: float | None


_DetectedFrame = tuple[_Frame, Detections]


def process_video(
    source: VideoSource,
    sink: VideoSink | None,
    predict: PredictFrames,
    on_frame: OnFrame | None = None,
    window: bool = False,
    every: int = 1,
    draw: Draw = draw_detections,
) -> VideoResult:
    """Detect objects in a video, in the calling thread; draw, write and show the frames.

    An error in any thread stops all threads and is raised here. Ctrl-C, which is the usual way to
    stop a camera, is raised for a file only. The caller closes `source` and `sink`.

    Args:
        source: the video.
        sink: where the frames are written, or None.
        predict: maps frames, RGB uint8 `(h, w, 3)`, to their detections in order. It may read
            frames ahead, but should not with a camera, and must not with `every`.
        on_frame: called with the index of each frame (from 0) that went through `predict`, and its
            detections.
        window: show the frames; q, Esc or closing the window stops.
        every: only every such frame goes through `predict`; the others show its detections, too.
        draw: draws detections into a copy of a frame, in a thread.
    """
    start = time.perf_counter()
    result = VideoResult()
    ahead = 1 if source.is_camera else QUEUE_SIZE
    decoded: BoundedQueue[_Frame] = BoundedQueue(ahead, newest=source.is_camera)
    detected: BoundedQueue[_DetectedFrame] = BoundedQueue(QUEUE_SIZE)
    rendered: BoundedQueue[np.ndarray] = BoundedQueue(1, newest=True)
    rendering = (detected, sink, rendered if window else None, source.is_camera, draw)
    threads = (
        threading.Thread(target=_decode, args=(source, decoded, start), daemon=True),
        threading.Thread(target=_render, args=rendering, daemon=True),
    )
    try:
        with (
            Window(source.name) if window else nullcontext() as screen,
            _running(threads, (decoded, detected), source),
            closing(_detect(decoded, predict, every)) as frames,
        ):
            for index, frame, detections in frames:
                if not detected.put((frame, detections)):
                    break
                result.frames += 1
                if index % every == 0:
                    result.add(detections)
                    if on_frame:
                        on_frame(index, detections)
                if screen is not None and not _show_latest(screen, rendered):
                    result.stopped = True
                    break
    except KeyboardInterrupt:
        if not source.is_camera:
            raise
        result.stopped = True
    detected.check()
    result.seconds = time.perf_counter() - start
    return result


@contextmanager
def _running(
    threads: Sequence[threading.Thread], queues: Sequence[BoundedQueue], source: VideoSource
) -> Iterator[None]:
    """Run threads during the block; at its end, close their queues and wait for them."""
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        source.stop()
        for queue in queues:
            queue.close()
        for thread in threads:
            if thread.is_alive():
                thread.join()


def _decode(source: VideoSource, decoded: BoundedQueue[_Frame], start: float) -> None:
    """Thread: decode frames until the source ends or the queue is closed."""
    try:
        for image, seconds in source.frames():
            shown = time.perf_counter() - start if source.is_camera else seconds
            if not decoded.put(_Frame(image, shown)):
                return
        decoded.close()
    except Exception as error:
        decoded.close(error)


def _detect(
    decoded: BoundedQueue[_Frame], predict: PredictFrames, every: int
) -> Generator[tuple[int, _Frame, Detections], None, None]:
    """Yield the index of each frame, the frame, and the detections to show in it."""
    if every > 1:
        yield from _detect_some(decoded, predict, every)
        return
    pairs = with_detections(predict, decoded, lambda frame: frame.image)
    for index, (frame, detections) in enumerate(pairs):
        yield index, frame, detections


def _detect_some(
    decoded: BoundedQueue[_Frame], predict: PredictFrames, every: int
) -> Iterator[tuple[int, _Frame, Detections]]:
    """The same with `predict` on every such frame only; it takes one when its result is needed."""
    due: deque[np.ndarray] = deque()

    def images() -> Iterator[np.ndarray]:
        while due:
            yield due.popleft()

    results = iter(predict(images()))
    for index, frame in enumerate(decoded):
        if index % every == 0:
            due.append(frame.image)
            detections = next(results)
        yield index, frame, detections


def _render(
    detected: BoundedQueue[_DetectedFrame],
    sink: VideoSink | None,
    rendered: BoundedQueue[np.ndarray] | None,
    real_time: bool,
    draw: Draw,
) -> None:
    """Thread: draw the detections, write the frame and hand it to the window.

    In real time, frames are repeated or dropped if the sink's frame rate is constant.
    """
    try:
        for frame, detections in detected:
            if sink is None and rendered is None:
                continue
            image = draw(frame.image, detections)
            if sink is not None:
                for _ in range(_copies(frame, sink, real_time)):
                    sink.write(image, frame.seconds)
            if rendered is not None:
                rendered.put(image)
    except Exception as error:
        detected.close(error)


def _copies(frame: _Frame, sink: VideoSink, real_time: bool) -> int:
    if not real_time or sink.keeps_times or frame.seconds is None:
        return 1
    return math.floor(frame.seconds * sink.fps) + 1 - sink.frames


def _show_latest(screen: Window, rendered: BoundedQueue[np.ndarray]) -> bool:
    """Show the newest rendered frame, if any; return False once the user has stopped."""
    image = rendered.get_nowait()
    return image is None or screen.show(image)
