"""Videos through OpenCV: cameras, AVI files, and everything if PyAV is not installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.core.errors import UserError
from utils.core.inputs import ReadError
from utils.core.outputs import WriteError

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
COMPLETE = 0.9  # share of the frames that a finished file must claim; some containers estimate it
FRAMES_PER_CHECK = 100  # of the free space: OpenCV's writer hides a full disk


class OpenCVReader:
    """Frames of a video; see `utils.visualization.video.Reader`.

    Args:
        source: a file, an address, or the number of a camera.
        timeout: seconds to wait for a stream to open, and for each of its frames; None: forever.

    Raises:
        ReadError: it does not open.
    """

    damaged = 0  # OpenCV does not tell

    def __init__(self, source: str | int, timeout: float | None = None) -> None:
        if isinstance(source, str):
            check_name(source, f"cannot read video {source}")
        if timeout is None:
            self._capture = cv2.VideoCapture(source)
        else:
            limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
            options = [value for limit in limits for value in (limit, round(1000 * timeout))]
            self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, options)
        if not self._capture.isOpened():
            raise ReadError("OpenCV cannot open it")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = int(count) if 0 < count < 2**31 else None

    def frames(self) -> Iterator[tuple[np.ndarray, float | None]]:
        while True:
            good, frame = self._capture.read()
            if not good:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), None

    def close(self) -> None:
        self._capture.release()


class OpenCVWriter:
    """Writes frames at a constant rate; see `utils.visualization.video.Writer`.

    Args:
        part: the file to write; its suffix selects the codec (`CODECS`).
        path: the file's later name, for error messages.
        fps: frames per second.
        size: (width, height), even numbers of pixels.

    Raises:
        UserError: the file cannot be written.
    """

    keeps_times = False

    def __init__(self, part: Path, path: Path, fps: float, size: tuple[int, int]) -> None:
        check_name(str(part), f"cannot write video {path}")
        self._part, self._path, self._frames = part, path, 0
        self._check_space()
        codec = CODECS[path.suffix.lower()]
        self._writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*codec), fps, size)
        if not self._writer.isOpened():
            raise UserError(
                f"cannot write video {path}: OpenCV cannot open it "
                f"(codec {codec}, {size[0]}x{size[1]})"
            )

    def write(self, frame: np.ndarray, seconds: float | None) -> None:
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._frames += 1
        if self._frames % FRAMES_PER_CHECK == 0:
            self._check_space()

    def close(self) -> None:
        self._writer.release()
        if self._frames:
            self._check_complete()

    def _check_space(self) -> None:
        if not shutil.disk_usage(self._part.parent).free:
            raise WriteError(f"cannot write video {self._path}: no space left on the disk")

    def _check_complete(self) -> None:
        self._check_space()
        capture = cv2.VideoCapture(str(self._part))
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if frames < COMPLETE * self._frames:
            raise WriteError(
                f"cannot write video {self._path}: {self._frames} frames were given to OpenCV, "
                f"but the file holds {frames:g}; is the disk full?"
            )


def check_name(path: str, message: str) -> None:
    """Refuse a name on which OpenCV crashes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{message}: a path in UTF-8 is needed; rename it") from None
