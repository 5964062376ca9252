"""Reading and writing videos, and what cannot be opened: one line that says what to do."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numbered_video import number, numbered, read_all, write_video

from utils.core.errors import UserError
from utils.core.process import silence_opencv
from utils.visualization.video import VideoSink, VideoSource, open_video

ROOT = Path(__file__).resolve().parents[3]


class FakeReader:
    """One black frame."""

    damaged, frame_count = 0, None

    def __init__(self, fps: float) -> None:
        self.fps = fps

    def frames(self):
        yield np.zeros((4, 6, 3), np.uint8), None

    def close(self) -> None:
        pass


@pytest.mark.parametrize("reported", [0.0, float("nan"), 90000.0, -1.0, float("inf")])
def test_absurd_frame_rates_fall_back_with_a_note(reported: float):
    source = VideoSource(FakeReader(reported), "clip.mp4", False)
    assert source.fps == 25 and source.note and "clip.mp4" in source.note


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("clip.mp5", "clip.mp5: no such file; did you mean 'clip.mp4'?"),
        ("", "it is a folder"),
        ("noise.mp4", "not a format that is known"),
        ("empty.mp4", "not a format that is known"),
        ("63", "--source"),
    ],
)
def test_sources_that_do_not_open_are_one_line(tmp_path: Path, source: str, words: str):
    with VideoSink(tmp_path / "clip.mp4", 25, (64, 48)) as sink:
        sink.write(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "noise.mp4").write_bytes(os.urandom(3000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        open_video(source if source.isdecimal() else tmp_path / source)
    assert words in str(caught.value) and "\n" not in str(caught.value)


OPEN_CORRUPT = """
from utils.core.errors import UserError
from utils.core.process import configure_process
from utils.visualization.video import open_video

configure_process()
for name in ("noise.mp4", "empty.mp4"):
    try:
        open_video(name)
    except UserError:
        print("refused", name)
"""


class StallingServer(ThreadingHTTPServer):
    """Sends half of a file, then nothing."""

    def __init__(self, content: bytes) -> None:
        self.content, self.go_on = content, threading.Event()
        super().__init__(("127.0.0.1", 0), Half)
        self.address = f"http://127.0.0.1:{self.server_port}/clip.avi"

    def __enter__(self) -> "StallingServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()


class Half(BaseHTTPRequestHandler):
    server: StallingServer

    def do_GET(self) -> None:
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.server.go_on.wait(30)

    def log_message(self, *_: object) -> None:
        pass


def test_a_stream_that_stalls_is_reported_in_time(tmp_path: Path):
    silence_opencv()
    noise = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), np.uint8)
    with VideoSink(tmp_path / "clip.avi", 25, (64, 48)) as sink:
        for frame in noise:
            sink.write(frame)
    start = time.monotonic()
    with (
        StallingServer((tmp_path / "clip.avi").read_bytes()) as server,
        open_video(server.address, timeout=1) as source,
        pytest.raises(UserError, match=r"clip\.avi: no frame for 1 s: the stream has"),
    ):
        list(source)
    assert time.monotonic() - start < 15


def test_opencv_and_ffmpeg_log_nothing(tmp_path: Path):
    """In a process of its own, since FFmpeg's log level is set when the first video is opened."""
    (tmp_path / "noise.mp4").write_bytes(os.urandom(3000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", OPEN_CORRUPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("refused noise.mp4\nrefused empty.mp4\n", "")


@pytest.mark.parametrize(
    ("name", "fps"), [("x.gif", 25), ("x", 25), ("x.mp4", 0), ("x.mp4", float("nan"))]
)
def test_sinks_that_cannot_be_written_are_user_errors(tmp_path: Path, name: str, fps: float):
    with pytest.raises(UserError, match="cannot write video"):
        VideoSink(tmp_path / name, fps, (64, 64))


def test_a_sink_below_a_file_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*x\.mp4: "):
        VideoSink(tmp_path / "file" / "x.mp4", 25, (64, 64))


@pytest.mark.parametrize("size", [(97, 65), (33, 64), (64, 33)])
def test_odd_sizes_lose_no_row_or_column(tmp_path: Path, size: tuple[int, int]):
    write_video(tmp_path / "odd.mp4", 5, size=size)
    frames, _ = read_all(tmp_path / "odd.mp4")
    assert len(frames) == 5
    assert frames[0].shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    assert [number(frame) for frame in frames] == list(range(5))


def test_frames_of_another_size_are_resized_not_dropped(tmp_path: Path):
    with VideoSink(tmp_path / "x.avi", 25, (96, 64)) as sink:
        sink.write(numbered(0, (96, 64)))
        sink.write(numbered(7, (192, 80)))
    assert [number(frame) for frame in read_all(tmp_path / "x.avi")[0]] == [0, 7]


def test_a_video_without_frames_leaves_no_file(tmp_path: Path):
    with VideoSink(tmp_path / "x.mp4", 25, (96, 64)):
        pass
    assert not list(tmp_path.iterdir())


def test_frames_are_rgb(tmp_path: Path):
    with VideoSink(tmp_path / "red.mp4", 25, (64, 64)) as sink:
        sink.write(np.full((64, 64, 3), (220, 20, 20), np.uint8))
    with open_video(tmp_path / "red.mp4") as source:
        red, green, blue = next(iter(source))[30, 30].astype(int)
    assert red > 180 and green < 60 and blue < 60
