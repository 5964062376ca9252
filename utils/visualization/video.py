"""Video files and cameras: read, detect, draw and write, the three overlapping in threads.

A file's frames are all processed, in order; of a camera always the newest frame, and its recording keeps real time.
At most `QUEUE` frames wait between two stages, so memory stays flat.
"""

import math
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault(
    "OPENCV_FFMPEG_LOGLEVEL", "-8"
)  # FFmpeg prints its own lines beside our one-line errors

import cv2
import numpy as np

from nets.inference.detections import Detections
from utils.core.bounded_queue import BoundedQueue
from utils.core.errors import UserError, nearest
from utils.visualization.boxes import draw_detections

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
FALLBACK_FPS = 25.0
QUEUE = 4  # frames between two stages: enough to even out their times

Predict = Callable[[Iterable[np.ndarray]], Iterable[Detections]]
OnFrame = Callable[[int, Detections], None]


class VideoSource(AbstractContextManager["VideoSource"]):
    """An open video file, stream or camera; iterate once for RGB uint8 `(height, width, 3)` frames.

    Attributes:
        name: file name, address or "camera0". is_camera: frames come in real time (camera or network stream).
        fps: frames a second. width, height: pixels of the upright picture.
        frame_count: the container's estimate; none when unknown. note: what was assumed about the video, if anything.
    """

    def __init__(
        self, capture: cv2.VideoCapture, first: np.ndarray, name: str, is_camera: bool
    ) -> None:
        self._capture, self._first = capture, first
        self.name, self.is_camera = name, is_camera
        self.height, self.width = first.shape[:2]
        fps = capture.get(cv2.CAP_PROP_FPS)
        known = (
            math.isfinite(fps) and 0.1 <= fps < 1000
        )  # 1000 and 90000 are clock ticks, not frame rates
        self.fps = float(fps) if known else FALLBACK_FPS
        self.note = (
            None
            if known
            else f"{name}: frame rate {fps:g} is not usable, {FALLBACK_FPS:g} fps assumed"
        )
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = (
            int(count) if not is_camera and math.isfinite(count) and 0 < count < 2**31 else None
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, good = self._first, True
        while good:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            good, frame = self._capture.read()

    def release(self) -> None:
        self._capture.release()

    def __exit__(self, *_: object) -> None:
        self.release()


def open_video(source: str | int | Path) -> VideoSource:
    """Open a video file, a camera by number (`0`, `"0"`) or a stream's address (`rtsp://...`).

    Raises:
        UserError: the file is missing, empty or no video; the camera or stream does not open.
    """
    text = str(source)
    camera, stream = text.isdecimal(), "://" in text
    if not camera and not stream:
        _check_file(Path(text))
    _quiet()
    capture = cv2.VideoCapture(int(text) if camera else text)
    good, first = capture.read() if capture.isOpened() else (False, None)
    if good and first is not None:
        name = f"camera{text}" if camera else text if stream else Path(text).name
        return VideoSource(capture, first, name, camera or stream)
    capture.release()
    if camera:
        raise UserError(
            f"cannot open camera {text}: give a video file or another camera's number with --source"
        )
    what = (
        "the stream does not open"
        if stream
        else "no video that OpenCV reads, without frames, or corrupt"
    )
    raise UserError(f"cannot read video {text}: {what}")


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"cannot read video {path}: it is a folder, expected a video file or a camera's number"
        )
    if not path.is_file():
        siblings = (
            [file.name for file in path.parent.iterdir() if file.is_file()]
            if path.parent.is_dir()
            else []
        )
        hint = nearest(path.name, siblings) if len(siblings) < 1000 else ""
        raise UserError(
            f"cannot read video {path}: no such file{hint if hint.startswith('; did') else ''}"
        )


def _quiet() -> None:
    """Silence OpenCV's own log lines: our error says it in one."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoSink(AbstractContextManager["VideoSink"]):
    """A video file being written; closed on leaving the `with` block, also after an error, so that it plays.

    Frames of another size are resized; odd sides grow by one repeated row or column, as the codecs need even ones.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        """`fps` may be fractional; `size` is (width, height) in pixels. The suffix chooses the codec (`CODECS`).

        Raises:
            UserError: unknown suffix, a frame rate that is not positive, or the file cannot be opened for writing.
        """
        self.path, self.fps, self.size, self.frames = Path(path), fps, size, 0
        codec = CODECS.get(self.path.suffix.lower())
        if codec is None:
            raise UserError(
                f"cannot write video {path}: suffix '{self.path.suffix}' is not one of {', '.join(CODECS)}"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(
                f"cannot write video {path}: the frame rate must be positive, got {fps}"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write video {path}: {error.strerror or error}") from None
        _quiet()
        even = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*codec), fps, even)
        if not self._writer.isOpened():
            raise UserError(
                f"cannot write video {path}: OpenCV cannot open it (codec {codec}, {even[0]}x{even[1]})"
            )

    def write(self, rgb: np.ndarray) -> None:
        """Append an RGB uint8 `(h, w, 3)` frame."""
        if (rgb.shape[1], rgb.shape[0]) != self.size:
            rgb = cv2.resize(rgb, self.size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        right, bottom = self.size[0] % 2, self.size[1] % 2
        if right or bottom:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(bgr)
        self.frames += 1

    def close(self) -> None:
        """Finish the file; may be called again. Without a frame there is nothing to play: no file is left."""
        self._writer.release()
        if not self.frames:
            self.path.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """A window that shows pictures.

    Raises:
        UserError: there is no screen, or OpenCV was built without windows.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise UserError(
                "--show needs a screen, but neither DISPLAY nor WAYLAND_DISPLAY is set; leave --show out"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error:
            raise UserError(
                "--show needs opencv-python: this OpenCV (opencv-python-headless?) has no windows"
            ) from None

    def show(self, rgb: np.ndarray, wait: int = 1) -> bool:
        """Show an image for `wait` ms (0: until a key); False once the user pressed q or Esc or closed the window."""
        cv2.imshow(self.title, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(wait) & 0xFF
        return (
            key not in (ord("q"), 27)
            and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        )

    def close(self) -> None:
        cv2.destroyWindow(self.title)


@dataclass
class VideoResult:
    """frames: processed; counts: detections per class name; seconds: wall time; stopped: ended by the user."""

    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: bool = False

    def add(self, detections: Detections) -> None:
        self.frames += 1
        self.counts.update(detections.names[int(label)] for label in detections.labels)


Shot = tuple[float, np.ndarray]  # seconds since the start, frame
Drawn = tuple[float, np.ndarray, Detections]


def process_video(
    source: VideoSource,
    sink: VideoSink | None,
    predict: Predict,
    on_frame: OnFrame | None = None,
    window: bool = False,
) -> VideoResult:
    """Run `predict` on every frame (of a camera: on the newest), in the calling thread; draw, write and show.

    Decoding and drawing + encoding run in two more threads. An error in any of them ends all and is raised here.
    Ctrl-C is the usual end of a camera: it returns what was done; for a file it is raised. The caller closes
    `source` and `sink` (both are context managers).

    Args:
        predict: RGB uint8 `(h, w, 3)` frames -> the Detections of each, in order. It may take frames ahead, of a
            file; of a camera these would come late.
        on_frame: called with the frame's index (from 0) and its detections, in order.
        window: show the frames; q, Esc or closing the window ends.
    """
    screen = Window(source.name) if window else None
    start, result = time.perf_counter(), VideoResult()
    shots: BoundedQueue[Shot] = BoundedQueue(
        1 if source.is_camera else QUEUE, newest=source.is_camera
    )
    drawn: BoundedQueue[Drawn] = BoundedQueue(QUEUE)
    shown: BoundedQueue[np.ndarray] | None = BoundedQueue(1, newest=True) if window else None
    workers = [
        threading.Thread(target=_decode, args=(source, shots, start), name="decode", daemon=True),
        threading.Thread(
            target=_render, args=(drawn, sink, shown, source.is_camera), name="render", daemon=True
        ),
    ]
    try:
        for worker in workers:
            worker.start()
        with closing(_detected(shots, predict)) as detected:
            for index, (seconds, frame, detections) in enumerate(detected):
                if not drawn.put((seconds, frame, detections)):
                    break
                result.add(detections)
                if on_frame:
                    on_frame(index, detections)
                latest = shown.get_nowait() if shown is not None else None
                if screen and latest is not None and not screen.show(latest):
                    result.stopped = True
                    break
    except KeyboardInterrupt:
        if not source.is_camera:
            raise
        result.stopped = True
    finally:
        shots.close()
        drawn.close()
        for worker in workers:
            if worker.is_alive():
                worker.join()
        if screen:
            screen.close()
    drawn.check()
    result.seconds = time.perf_counter() - start
    return result


def _detected(shots: BoundedQueue[Shot], predict: Predict) -> Generator[Drawn, None, None]:
    """Each shot with what was found in it."""
    taken: deque[Shot] = deque()

    def frames() -> Iterator[np.ndarray]:
        for shot in shots:
            taken.append(shot)
            yield shot[1]

    for detections in predict(frames()):
        yield *taken.popleft(), detections


def _decode(source: VideoSource, shots: BoundedQueue[Shot], start: float) -> None:
    """Thread: frames into `shots` until the source ends or the channel is closed."""
    try:
        for frame in source:
            if not shots.put((time.perf_counter() - start, frame)):
                return
        shots.close()
    except Exception as error:
        shots.close(error)


def _render(
    drawn: BoundedQueue[Drawn],
    sink: VideoSink | None,
    shown: BoundedQueue[np.ndarray] | None,
    real_time: bool,
) -> None:
    """Thread: draw, write and hand to the window. In real time frames repeat or drop out to keep the sink's rate."""
    try:
        for seconds, frame, detections in drawn:
            if sink is None and shown is None:
                continue
            canvas = draw_detections(frame, detections)
            if sink is not None:
                due = math.floor(seconds * sink.fps) + 1 if real_time else sink.frames + 1
                for _ in range(due - sink.frames):
                    sink.write(canvas)
            if shown is not None:
                shown.put(canvas)
    except Exception as error:
        drawn.close(error)
