"""Videos through PyAV, which is FFmpeg: times of frames, streams, H.264. An optional package."""

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from utils.core.environment import cpu_count
from utils.core.errors import UserError, require_package
from utils.core.inputs import ReadError
from utils.core.outputs import WriteError, write_error
from utils.visualization.video_opencv import check_name

MAX_GAP = 3600.0  # seconds between two frames of a file; more, or less than none, is a damaged time
MIN_TICKS = 10_000  # per second, the precision of a frame's time in the file
MAX_DENOMINATOR = 1001  # of a frame rate, 30000/1001 for instance
MAX_THREADS = 4  # of the encoder, which shares the cores with the detector
# As fast as OpenCV's MPEG-4, files of the same size, and better quality
OPTIONS = {"preset": "ultrafast", "crf": "25"}
# FFmpeg's numbers for what OpenCV converts to
COLORS = {"colorspace": 6, "color_primaries": 1, "color_trc": 1, "color_range": 1}
# rtsp over TCP where the server can: UDP loses packets
STREAM_OPTIONS = {"rtsp_flags": "prefer_tcp"}


def find_pyav() -> ModuleType | None:
    """The package `av`, or None if it is not installed."""
    try:
        return require_package("av", "video")
    except UserError:
        return None


def can_encode(av: ModuleType) -> bool:
    """Whether this build of FFmpeg has the encoder."""
    return "libx264" in av.codecs_available


class PyAVReader:
    """Frames of a video; see `utils.visualization.video.Reader`.

    Args:
        source: a file or an address.
        timeout: seconds to wait for a stream to open, and for each of its frames; None: a file.

    Raises:
        ReadError: it does not open, or holds no video.
    """

    def __init__(self, av: ModuleType, source: str, timeout: float | None = None) -> None:
        self._av, self._timeout, self.damaged = av, timeout, 0
        is_file = timeout is None
        if is_file:
            check_name(source, f"cannot read video {source}")
        try:
            self._container = av.open(
                f"file:{source}" if is_file else source,
                timeout=timeout,
                options={} if is_file else dict(STREAM_OPTIONS),
            )
        except (av.FFmpegError, ValueError) as error:
            raise ReadError(self._problem(error)) from None
        if not self._container.streams.video:
            self._container.close()
            raise ReadError("no video in it, only sound or text")
        self._stream = self._container.streams.video[0]
        if is_file:
            self._stream.thread_type = "AUTO"  # adds a delay of some frames
        # one for all frames: making one takes longer than converting a frame
        self._reformatter = av.video.reformatter.VideoReformatter()
        self.fps = float(self._stream.average_rate or self._stream.base_rate or 0)
        self.frame_count = self._stream.frames or self._estimated_count()

    def _estimated_count(self) -> int | None:
        duration = self._container.duration
        return round(duration / self._av.time_base * self.fps) if duration else None

    def frames(self) -> Iterator[tuple[np.ndarray, float | None]]:
        last_time: float | None = None
        seconds = 0.0
        for frame in self._decoded():
            step = 0.0 if frame.time is None or last_time is None else frame.time - last_time
            if last_time is not None:
                seconds += step if 0 < step < MAX_GAP else 1 / max(self.fps, 1.0)
            last_time = frame.time if frame.time is not None else last_time
            yield self._upright(frame), seconds

    def _decoded(self) -> Iterator[Any]:
        """Frames; damaged packets are counted and left out."""
        found, last = False, time.monotonic()
        for packet in self._packets():
            decoded: list[Any] = []
            if packet.stream is self._stream:
                try:
                    decoded = packet.decode()
                except self._av.error.InvalidDataError:
                    self.damaged += found  # a stream may begin in the middle of a frame
            if decoded:
                found, last = True, time.monotonic()
                yield from decoded
                last = time.monotonic()
            elif self._timeout is not None and time.monotonic() - last > self._timeout:
                raise ReadError(_stalled(self._timeout))

    def _packets(self) -> Iterator[Any]:
        """Packets of all kinds, so that a stream that has only sound left is noticed."""
        try:
            yield from self._container.demux()
        except self._av.error.InvalidDataError:
            self.damaged += 1  # nothing behind this can be found
        except self._av.FFmpegError as error:
            raise ReadError(self._problem(error)) from None

    def _problem(self, error: Exception) -> str:
        is_late = isinstance(error, (self._av.error.ExitError, TimeoutError))
        return _stalled(self._timeout) if is_late and self._timeout else _reason(error)

    def _upright(self, frame: Any) -> np.ndarray:
        """RGB uint8 `(h, w, 3)`, turned as the file asks for."""
        image = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def close(self) -> None:
        self._container.close()


def _stalled(timeout: float) -> str:
    return f"no frame for {timeout:g} s: the stream has stalled"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


class PyAVWriter:
    """Writes H.264 that browsers play; see `utils.visualization.video.Writer`.

    Args:
        part: the file to write; its suffix selects the container.
        path: the file's later name, for error messages.
        fps: frames per second.
        size: (width, height), even numbers of pixels.

    Raises:
        UserError: the file cannot be written.
    """

    keeps_times = True

    def __init__(
        self, av: ModuleType, part: Path, path: Path, fps: float, size: tuple[int, int]
    ) -> None:
        check_name(str(part), f"cannot write video {path}")
        self._av, self._path = av, path
        rate = Fraction(fps).limit_denominator(MAX_DENOMINATOR)
        fineness = math.ceil(MIN_TICKS / rate.numerator)
        self._tick = Fraction(1, rate.numerator * fineness)
        self._frame_ticks = rate.denominator * fineness
        self._next_tick = 0
        options = {} if path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        try:
            self._container = av.open(f"file:{part}", "w", options=options)
            self._stream = self._container.add_stream("libx264", rate=rate, options=OPTIONS)
        except (av.FFmpegError, ValueError) as error:
            raise UserError(f"cannot write video {path}: {_reason(error)}") from None
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._tick
        self._stream.codec_context.thread_count = max(1, min(MAX_THREADS, cpu_count() // 2))
        for name, value in COLORS.items():
            setattr(self._stream.codec_context, name, value)

    def write(self, frame: np.ndarray, seconds: float | None) -> None:
        planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
        image = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        tick = self._next_tick if seconds is None else round(seconds / self._tick)
        image.pts = max(tick, self._next_tick - self._frame_ticks + 1, 0)
        image.time_base = self._tick
        self._next_tick = image.pts + self._frame_ticks
        self._mux(image)

    def close(self) -> None:
        try:
            if self._next_tick:
                self._mux(None)
        finally:
            try:
                self._container.close()
            except self._av.FFmpegError as error:
                raise self._failure(error) from None

    def _mux(self, image: Any) -> None:
        try:
            self._container.mux(self._stream.encode(image))
        except self._av.FFmpegError as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> WriteError:
        reason = write_error(error) if isinstance(error, OSError) else _reason(error)
        return WriteError(f"cannot write video {self._path}: {reason}")
