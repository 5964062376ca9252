"""Videos whose frames can be told apart."""

from pathlib import Path

import cv2
import numpy as np

from utils.visualization.video import VideoSink

BARS = 32  # frames that can be told apart


def numbered(index: int, size: tuple[int, int]) -> np.ndarray:
    """A dark frame of (width, height) whose number is the place of a bright bar."""
    frame = np.full((size[1], size[0], 3), 40, np.uint8)
    frame[:, index * size[0] // BARS : (index + 1) * size[0] // BARS] = 220
    return frame


def number(frame: np.ndarray) -> int:
    """The number read back from a frame's lower half, where no label is drawn."""
    columns = frame[frame.shape[0] // 2 :].mean(axis=(0, 2))
    return int((columns.argmax() + 0.5) * BARS / len(columns))


def write_video(
    path: Path, frames: int = 30, fps: float = 25, size: tuple[int, int] = (96, 64)
) -> Path:
    with VideoSink(path, fps, size) as sink:
        for index in range(frames):
            sink.write(numbered(index, size))
    return path


def read_all(path: Path) -> tuple[list[np.ndarray], float]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = capture.read()
        if not good:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)
