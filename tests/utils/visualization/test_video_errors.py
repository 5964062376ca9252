"""Videos, cameras, outputs and windows that do not open end in one line that says what to do."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.core.errors import UserError
from utils.visualization import video
from utils.visualization.video import VideoSink, open_video


def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", fail)
    with pytest.raises(UserError, match="opencv-python"):
        video.Window("x")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="--show"):
        video.Window("x")


@pytest.mark.parametrize("reported", [0.0, float("nan"), 90000.0, -1.0, float("inf")])
def test_absurd_frame_rates_fall_back_with_a_note(reported: float):
    class Capture:
        def get(self, key: int) -> float:
            return reported

    source = video.VideoSource(Capture(), np.zeros((4, 6, 3), np.uint8), "clip.mp4", False)  # type: ignore[arg-type]
    assert source.fps == 25 and source.note and "clip.mp4" in source.note


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("clip.mp5", "clip.mp5: no such file; did you mean 'clip.mp4'?"),
        ("", "it is a folder"),
        ("noise.mp4", "no video"),
        ("empty.mp4", "no video"),
        ("63", "--source"),
    ],
)
def test_sources_that_do_not_open_are_one_line(tmp_path: Path, capfd, source: str, words: str):
    with VideoSink(tmp_path / "clip.mp4", 25, (64, 48)) as sink:
        sink.write(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "noise.mp4").write_bytes(os.urandom(3000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    capfd.readouterr()
    with pytest.raises(UserError) as caught:
        open_video(source if source.isdecimal() else tmp_path / source)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # no lines of OpenCV's or FFmpeg's beside it


@pytest.mark.parametrize(
    ("name", "fps"), [("x.gif", 25), ("x", 25), ("x.mp4", 0), ("x.mp4", float("nan"))]
)
def test_sinks_that_cannot_be_written_are_user_errors(tmp_path: Path, name: str, fps: float):
    with pytest.raises(UserError, match="cannot write video"):
        VideoSink(tmp_path / name, fps, (64, 64))


def test_a_sink_below_a_file_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write video"):
        VideoSink(tmp_path / "file" / "x.mp4", 25, (64, 64))
