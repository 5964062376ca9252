"""Videos that OpenCV writes are checked: its writer hides a full disk."""

import os
from pathlib import Path

import numpy as np
import pytest

from utils.core.outputs import WriteError
from utils.core.process import silence_opencv
from utils.visualization import video_opencv
from utils.visualization.video_opencv import OpenCVWriter

SIZE = (64, 48)


@pytest.fixture
def writer(tmp_path: Path) -> OpenCVWriter:
    silence_opencv()
    return OpenCVWriter(tmp_path / "part.mp4", tmp_path / "x.mp4", 25, SIZE)


def write_frames(writer: OpenCVWriter, count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    for _ in range(count):
        writer.write(noise, None)


def test_a_whole_video_is_accepted(writer: OpenCVWriter) -> None:
    write_frames(writer, 40)
    writer.close()


def test_frames_that_did_not_reach_the_file_are_noticed(writer: OpenCVWriter) -> None:
    write_frames(writer, 40)
    writer._writer.release()
    os.truncate(writer._part, writer._part.stat().st_size // 2)
    with pytest.raises(WriteError, match=r"x\.mp4: 40 frames were given to OpenCV, but .* full\?"):
        writer.close()


def test_a_full_disk_is_noticed_while_frames_are_written(
    writer: OpenCVWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(video_opencv.shutil, "disk_usage", lambda _: usage)
    write_frames(writer, video_opencv.FRAMES_PER_CHECK - 1)
    with pytest.raises(WriteError, match=r"x\.mp4: no space left on the disk"):
        write_frames(writer, 1)
