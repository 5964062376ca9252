"""Reading and writing videos, through PyAV if it is installed, else through OpenCV."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from utils.core.errors import UserError, shorten, without_login
from utils.core.inputs import ReadError, check_input, is_folder, similar_file
from utils.core.outputs import new_file
from utils.visualization.live_stream import LiveStream
from utils.visualization.video_opencv import CODECS, OpenCVReader, OpenCVWriter
from utils.visualization.video_pyav import PyAVReader, PyAVWriter, can_encode, find_pyav

FALLBACK_FPS = 25.0
MAX_FPS = 1000  # some containers report clock ticks instead, 1000 or 90000 per second
STREAM_TIMEOUT = 10.0  # seconds
RECONNECT = 60.0  # seconds
CAMERA_DIGITS = 3  # OpenCV does not take just any number
FILE_SCHEMES = ("http:", "https:", "ftp:")  # what has an end there is a file, not a broadcast


class Reader(Protocol):
    """Frames of a video.

    Attributes:
        fps: frames per second as the container reports them, or 0.
        frame_count: the container's estimate; None if there is none.
        damaged: damaged packets that were left out until now.
    """

    fps: float
    frame_count: int | None

    @property
    def damaged(self) -> int: ...

    def frames(self) -> Iterator[tuple[np.ndarray, float | None]]:
        """Upright frames, RGB uint8 `(h, w, 3)`; and seconds since the first, if known.

        Raises:
            ReadError: the video was lost.
        """
        ...

    def close(self) -> None: ...


class Writer(Protocol):
    """A video file being written.

    Attributes:
        keeps_times: whether frames may have times; else their rate is constant.
    """

    keeps_times: bool

    def write(self, frame: np.ndarray, seconds: float | None) -> None:
        """Append a frame, RGB uint8 `(h, w, 3)` with even sides; None: after the one before.

        Raises:
            WriteError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the file.

        Raises:
            WriteError: it was not written completely.
        """
        ...


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

    Raises:
        ReadError: there are no frames.
    """

    def __init__(self, reader: Reader, name: str, is_camera: bool) -> None:
        self._reader = reader
        self._frames = reader.frames()
        first = next(self._frames, None)
        if first is None:
            raise ReadError("no frames")
        self._first = first
        self.name = name
        self.is_camera = is_camera
        self.height, self.width = first[0].shape[:2]
        self.fps = FALLBACK_FPS
        self.note: str | None = None
        fps = reader.fps
        if math.isfinite(fps) and 0.1 <= fps < MAX_FPS:
            self.fps = fps
        else:
            self.note = f"{name}: frame rate {fps:g} is not usable, {FALLBACK_FPS:g} fps assumed"
        self.frame_count = None if is_camera else reader.frame_count

    @property
    def damaged(self) -> int:
        """Damaged packets that were left out until now."""
        return self._reader.damaged

    def frames(self) -> Iterator[tuple[np.ndarray, float | None]]:
        """The frames; and for each, seconds since the first, if the file tells.

        Raises:
            UserError: the video was lost.
        """
        yield self._first
        yield from self._frames

    def __iter__(self) -> Iterator[np.ndarray]:
        for image, _ in self.frames():
            yield image

    def stop(self) -> None:
        """End the iteration, from another thread; only a stream's may wait for long."""
        if isinstance(self._reader, LiveStream):
            self._reader.stop()

    def release(self) -> None:
        self._reader.close()

    def __exit__(self, *_: object) -> None:
        self.release()


def open_video(
    source: str | int | Path,
    timeout: float = STREAM_TIMEOUT,
    reconnect: float = 0.0,
    tell: Callable[[str], None] = lambda line: None,
) -> VideoSource:
    """Open a video.

    Args:
        source: a file, the number of a camera (`0` or `"0"`) or a stream's address (`rtsp://...`).
        timeout: seconds to wait for a stream to open, and for each of its frames.
        reconnect: seconds to go on trying when a stream is lost; 0: not at all.
        tell: called with a line when a stream is lost, and when it is back.

    Raises:
        UserError: the file is missing, empty or not a video, or the camera or stream does not open.
    """
    text = str(source).removeprefix("file://")
    if _is_camera(text):
        return _open_camera(text)
    if is_live(text):
        return _open_stream(text, timeout, reconnect, tell)
    check_video_file(text)
    av = find_pyav()
    path = str(Path(text).absolute())
    try:
        reader: Reader = PyAVReader(av, path) if av else OpenCVReader(path)
        return _first_frame(reader, Path(text).name, is_camera=False)
    except ReadError as error:
        raise UserError(
            f"cannot read video {text}: not a format that is known, no frames, or corrupt ({error})"
        ) from None


def is_live(source: str | int | Path) -> bool:
    """Whether a source is a camera's number or an address, and not a file."""
    text = str(source).removeprefix("file://")
    return _is_camera(text) or "://" in text


def _is_camera(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _open_camera(digits: str) -> VideoSource:
    if len(digits.lstrip("0")) > CAMERA_DIGITS:
        raise UserError(
            f"cannot open camera {shorten(digits)}: expected a number of up to {CAMERA_DIGITS} "
            "digits"
        )
    try:
        return _first_frame(OpenCVReader(int(digits)), f"camera{digits}", is_camera=True)
    except ReadError:
        raise UserError(
            f"cannot open camera {digits}: give a video file or another camera's number "
            "with --source"
        ) from None


def _open_stream(
    address: str, timeout: float, reconnect: float, tell: Callable[[str], None]
) -> VideoSource:
    av = find_pyav()
    name = without_login(address)

    def connect() -> Reader:
        return PyAVReader(av, address, timeout) if av else OpenCVReader(address, timeout)

    may_end = address.lower().startswith(FILE_SCHEMES)
    try:
        stream = LiveStream(connect, name, timeout, reconnect, tell, may_end)
        return _first_frame(stream, name, is_camera=not stream.is_file)
    except ReadError as error:
        raise UserError(f"cannot read video {name}: the stream does not open ({error})") from None


def _first_frame(reader: Reader, name: str, is_camera: bool) -> VideoSource:
    try:
        return VideoSource(reader, name, is_camera)
    except BaseException:
        reader.close()
        raise


def check_video_file(path: str) -> None:
    """Refuse what is not a file, or cannot be opened.

    Raises:
        UserError: it is refused.
    """
    if is_folder(path):
        raise UserError(
            f"cannot read video {path}: it is a folder, expected a video file or a camera's number"
        )
    try:
        check_input(path, "cannot read video")
    except ReadError as error:
        raise UserError(f"{error}{similar_file(path)}") from None


class VideoSink(AbstractContextManager["VideoSink"]):
    """A video file being written; it gets its name when the `with` block ends.

    After an error or Ctrl-C in the block, the frames until then are kept; if the file cannot be
    written, nothing is.

    With PyAV the file is H.264, but for .avi; else OpenCV writes MPEG-4 part 2, which browsers do
    not play. Frames of another size are resized. Odd sides are padded by repeating a row or column,
    since the codecs need even sides.

    Args:
        path: the file; its suffix selects the container (`CODECS`).
        fps: frames per second, may be fractional.
        size: (width, height) of a frame, pixels.

    Attributes:
        frames: number of frames written.
        keeps_times: whether frames may have times; else their rate is constant.

    Raises:
        UserError: unknown suffix, a frame rate that is not positive, or the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.frames = 0
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise UserError(
                f"cannot write video {path}: suffix '{self.path.suffix}' is not one of "
                f"{', '.join(CODECS)}"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(
                f"cannot write video {path}: the frame rate must be positive, got {fps}"
            )
        even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        av = find_pyav() if suffix != ".avi" else None
        with ExitStack() as stack:
            self._part = stack.enter_context(new_file(path))
            if av and can_encode(av):
                self._writer: Writer = PyAVWriter(av, self._part, self.path, fps, even)
            else:
                self._writer = OpenCVWriter(self._part, self.path, fps, even)
            self._file = stack.pop_all()
        self.keeps_times = self._writer.keeps_times

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Append a frame.

        Args:
            frame: RGB uint8 `(h, w, 3)`.
            seconds: when it is shown, since the start; None: after the one before.

        Raises:
            WriteError: it cannot be written.
        """
        if (frame.shape[1], frame.shape[0]) != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        right, bottom = self.size[0] % 2, self.size[1] % 2
        if right or bottom:
            frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        self._writer.write(frame, seconds)
        self.frames += 1

    def __exit__(self, *_: object) -> None:
        """Finish the file; without frames, there is none.

        Raises:
            WriteError: it was not written completely.
        """
        with self._file:
            self._writer.close()
            if not self.frames:
                self._part.unlink(missing_ok=True)
