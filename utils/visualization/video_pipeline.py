"""Detection in videos: decoding, detection and rendering overlap in three threads.

Every frame of a file is processed, in order. Of a camera, always the newest frame is processed, and
the recording keeps real time. At most `QUEUE_SIZE` frames wait between two stages, so memory use is
constant.
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
from utils.core.bounded_queue import BoundedQueue
from utils.visualization.video import VideoSink, VideoSource
from utils.visualization.window import Window

QUEUE_SIZE = 4  # enough to even out the durations of the stages

PredictFrames = Callable[[Iterable[np.ndarray]], Iterable[Detections]]
OnFrame = Callable[[int, Detections], None]


@dataclass
class VideoResult:
    """Summary of a processed video.

    Attributes:
        frames: number of frames.
        counts: detections by class name.
        seconds: wall-clock time.
        stopped: whether the user stopped it.
    """

    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: bool = False

    def add(self, detections: Detections) -> None:
        self.frames += 1
        self.counts.update(detections.names[int(label)] for label in detections.labels)


@dataclass(frozen=True)
class _Frame:
    """A decoded frame.

    Attributes:
        image: RGB uint8 `(h, w, 3)`.
        seconds: time of decoding, since the start.
    """

    image: np.ndarray
    seconds: float


_DetectedFrame = tuple[_Frame, Detections]


def process_video(
    source: VideoSource,
    sink: VideoSink | None,
    predict: PredictFrames,
    on_frame: OnFrame | None = None,
    window: bool = False,
) -> VideoResult:
    """Detect objects in a video, in the calling thread; draw, write and show the frames.

    An error in any thread stops all threads and is raised here. Ctrl-C is the usual way to stop a
    camera and returns the result so far; for a file it is raised. The caller closes `source` and
    `sink`.

    Args:
        source: the video.
        sink: video to write the frames to, or None.
        predict: maps frames, RGB uint8 `(h, w, 3)`, to their detections in order. It may read
            frames ahead, which should not happen with a camera: its detections would be late.
        on_frame: called with the index of each frame (from 0) and its detections.
        window: show the frames; q, Esc or closing the window stops.
    """
    start = time.perf_counter()
    result = VideoResult()
    decoded: BoundedQueue[_Frame] = BoundedQueue(
        1 if source.is_camera else QUEUE_SIZE, newest=source.is_camera
    )
    detected: BoundedQueue[_DetectedFrame] = BoundedQueue(QUEUE_SIZE)
    rendered: BoundedQueue[np.ndarray] = BoundedQueue(1, newest=True)
    threads = (
        threading.Thread(target=_decode, args=(source, decoded, start), daemon=True),
        threading.Thread(
            target=_render,
            args=(detected, sink, rendered if window else None, source.is_camera),
            daemon=True,
        ),
    )
    try:
        with (
            Window(source.name) if window else nullcontext() as screen,
            _running(threads, (decoded, detected)),
            closing(_detect(decoded, predict)) as frames,
        ):
            for index, (frame, detections) in enumerate(frames):
                if not detected.put((frame, detections)):
                    break
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
def _running(threads: Sequence[threading.Thread], queues: Sequence[BoundedQueue]) -> Iterator[None]:
    """Run threads during the block; at its end, close their queues and wait for them."""
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for queue in queues:
            queue.close()
        for thread in threads:
            if thread.is_alive():
                thread.join()


def _decode(source: VideoSource, decoded: BoundedQueue[_Frame], start: float) -> None:
    """Thread: decode frames until the source ends or the queue is closed."""
    try:
        for image in source:
            if not decoded.put(_Frame(image, time.perf_counter() - start)):
                return
        decoded.close()
    except Exception as error:
        decoded.close(error)


def _detect(
    decoded: BoundedQueue[_Frame], predict: PredictFrames
) -> Generator[_DetectedFrame, None, None]:
    """Pair each frame with its detections; `predict` may run several frames ahead."""
    waiting: deque[_Frame] = deque()

    def images() -> Iterator[np.ndarray]:
        for frame in decoded:
            waiting.append(frame)
            yield frame.image

    for detections in predict(images()):
        yield waiting.popleft(), detections


def _render(
    detected: BoundedQueue[_DetectedFrame],
    sink: VideoSink | None,
    rendered: BoundedQueue[np.ndarray] | None,
    real_time: bool,
) -> None:
    """Thread: draw the detections, write the frame and hand it to the window.

    In real time, frames are repeated or dropped to keep the sink's frame rate.
    """
    try:
        for frame, detections in detected:
            if sink is None and rendered is None:
                continue
            image = draw_detections(frame.image, detections)
            if sink is not None:
                due = math.floor(frame.seconds * sink.fps) + 1 if real_time else sink.frames + 1
                for _ in range(due - sink.frames):
                    sink.write(image)
            if rendered is not None:
                rendered.put(image)
    except Exception as error:
        detected.close(error)


def _show_latest(screen: Window, rendered: BoundedQueue[np.ndarray]) -> bool:
    """Show the newest rendered frame, if any; return False once the user has stopped."""
    image = rendered.get_nowait()
    return image is None or screen.show(image)
