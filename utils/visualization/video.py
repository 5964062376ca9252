"""Reading and writing videos."""

import math
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import cv2
import numpy as np

from utils.core.errors import UserError, shorten
from utils.core.files import (
    ReadError,
    WriteError,
    check_input,
    is_folder,
    new_file,
    similar_file,
)

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
FALLBACK_FPS = 25.0
MAX_FPS = 1000  # some containers report clock ticks instead, 1000 or 90000 per second
COMPLETE = 0.9  # share of the frames that a finished file must claim; some containers estimate it
FRAMES_PER_CHECK = 100  # of the free space: OpenCV's writer hides a full disk
STREAM_TIMEOUT = 10.0  # seconds
STALLED = 0.9  # share of the timeout after which a stream that ends counts as stalled
CAMERA_DIGITS = 3  # OpenCV does not take just any number


class VideoSource(AbstractContextManager["VideoSource"]):
    """An open video file, stream or camera; iterate once for RGB uint8 `(height, width, 3)` frames.

    Attributes:
        name: file name, address or "camera0".
        is_camera: whether frames arrive in real time, from a camera or a network stream.
        fps: frames per second.
        width: width of an upright frame, in pixels.
        height: height of an upright frame, in pixels.
        frame_count: the container's estimate; None if unknown.
        note: an assumption about the video that the user should know of, or None.
    """

    def __init__(
        self,
        capture: cv2.VideoCapture,
        first: np.ndarray,
        name: str,
        is_camera: bool,
        timeout: float = math.inf,
    ) -> None:
        self._capture = capture
        self._first = first
        self.name = name
        self.is_camera = is_camera
        self._timeout = timeout
        self.height, self.width = first.shape[:2]
        self.fps = FALLBACK_FPS
        self.note: str | None = None
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        if math.isfinite(fps) and 0.1 <= fps < MAX_FPS:
            self.fps = fps
        else:
            self.note = f"{name}: frame rate {fps:g} is not usable, {FALLBACK_FPS:g} fps assumed"
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = not is_camera and math.isfinite(count) and 0 < count < 2**31
        self.frame_count = int(count) if known else None

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, ok = self._first, True
        waits = deque([0.0], maxlen=2)  # the last frame before a gap may come late and cut off
        while ok:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            start = time.monotonic()
            ok, frame = self._capture.read()
            waits.append(time.monotonic() - start)
        if max(waits) >= STALLED * self._timeout:
            raise UserError(
                f"{self.name}: no frame for {self._timeout:g} s: the stream has stalled"
            )

    def release(self) -> None:
        self._capture.release()

    def __exit__(self, *_: object) -> None:
        self.release()


def open_video(source: str | int | Path, timeout: float = STREAM_TIMEOUT) -> VideoSource:
    """Open a video.

    Args:
        source: a file, the number of a camera (`0` or `"0"`) or a stream's address (`rtsp://...`).
        timeout: seconds to wait for a stream to open, and for each of its frames.

    Raises:
        UserError: the file is missing, empty or not a video, or the camera or stream does not open.
    """
    text = str(source)
    is_camera, is_stream = text.isascii() and text.isdecimal(), "://" in text
    if not is_camera and not is_stream:
        _check_file(text)
    if is_camera and len(text.lstrip("0")) > CAMERA_DIGITS:
        raise UserError(
            f"cannot open camera {shorten(text)}: expected a number of up to {CAMERA_DIGITS} digits"
        )
    if is_stream:
        capture = _open_stream(text, timeout)
    else:
        capture = cv2.VideoCapture(int(text) if is_camera else text)
    ok, first = capture.read() if capture.isOpened() else (False, None)
    if not ok or first is None:
        capture.release()
        raise UserError(_open_error(text, is_camera, is_stream))
    if is_camera:
        name = f"camera{text}"
    else:
        name = text if is_stream else Path(text).name
    return VideoSource(capture, first, name, is_camera or is_stream, timeout)


def _open_stream(address: str, timeout: float) -> cv2.VideoCapture:
    milliseconds = round(1000 * timeout)
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    options = [value for limit in limits for value in (limit, milliseconds)]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, options)


def _check_name(path: str, message: str) -> None:
    """Refuse a name on which OpenCV crashes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{message}: OpenCV needs a path in UTF-8; rename it") from None


def _open_error(source: str, is_camera: bool, is_stream: bool) -> str:
    if is_camera:
        return (
            f"cannot open camera {source}: give a video file or another camera's number "
            "with --source"
        )
    if is_stream:
        return f"cannot read video {source}: the stream does not open, or sends no frame in time"
    return f"cannot read video {source}: not a format that OpenCV reads, no frames, or corrupt"


def _check_file(path: str) -> None:
    if is_folder(path):
        raise UserError(
            f"cannot read video {path}: it is a folder, expected a video file or a camera's number"
        )
    try:
        check_input(path, "cannot read video")
    except ReadError as error:
        raise UserError(f"{error}{similar_file(path)}") from None
    _check_name(path, f"cannot read video {path}")


class VideoSink(AbstractContextManager["VideoSink"]):
    """A video file being written; it gets its name when the `with` block ends.

    After an error or Ctrl-C in the block, the frames until then are kept; if the file cannot be
    written, nothing is.

    Frames of another size are resized. Odd sides are padded by repeating a row or column, since the
    codecs need even sides.

    Args:
        path: the file; its suffix selects the codec (`CODECS`).
        fps: frames per second, may be fractional.
        size: (width, height) of a frame, pixels.

    Raises:
        UserError: unknown suffix, a frame rate that is not positive, or the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.frames = 0
        codec = CODECS.get(self.path.suffix.lower())
        if codec is None:
            raise UserError(
                f"cannot write video {path}: suffix '{self.path.suffix}' is not one of "
                f"{', '.join(CODECS)}"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(
                f"cannot write video {path}: the frame rate must be positive, got {fps}"
            )
        even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        with ExitStack() as stack:
            self._part = stack.enter_context(new_file(path))
            _check_name(str(self._part), f"cannot write video {path}")
            self._check_space()
            self._writer = cv2.VideoWriter(
                str(self._part), cv2.VideoWriter.fourcc(*codec), fps, even
            )
            if not self._writer.isOpened():
                raise UserError(
                    f"cannot write video {path}: OpenCV cannot open it "
                    f"(codec {codec}, {even[0]}x{even[1]})"
                )
            self._file = stack.pop_all()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, RGB uint8 `(h, w, 3)`."""
        if (frame.shape[1], frame.shape[0]) != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        right, bottom = self.size[0] % 2, self.size[1] % 2
        if right or bottom:
            bgr = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(bgr)
        self.frames += 1
        if self.frames % FRAMES_PER_CHECK == 0:
            self._check_space()

    def __exit__(self, *_: object) -> None:
        """Finish the file; without frames, there is none.

        Raises:
            WriteError: it was not written completely.
        """
        self._writer.release()
        with self._file:
            if self.frames:
                self._check_complete()
            else:
                self._part.unlink(missing_ok=True)

    def _check_space(self) -> None:
        if not shutil.disk_usage(self._part.parent).free:
            raise WriteError(f"cannot write video {self.path}: no space left on the disk")

    def _check_complete(self) -> None:
        self._check_space()
        capture = cv2.VideoCapture(str(self._part))
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if frames < COMPLETE * self.frames:
            raise WriteError(
                f"cannot write video {self.path}: {self.frames} frames were given to OpenCV, but "
                f"the file holds {frames:g}; is the disk full?"
            )
