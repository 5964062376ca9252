"""Videos through PyAV: what browsers need, times of frames, damaged and odd files."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numbered_video import number, numbered, read_all, write_video

from utils.core.errors import UserError
from utils.visualization.video import VideoSink, open_video

av = pytest.importorskip("av")
SIZE = (96, 64)


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PyAV was not installed."""
    monkeypatch.setitem(sys.modules, "av", None)


def codec(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


def write_times(path: Path, ticks: list[int], pix_fmt: str = "yuv420p", rotation: int = 0) -> Path:
    """Numbered frames at times in 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(index, SIZE), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def times(path: Path) -> list[float]:
    with open_video(path) as source:
        return [seconds for _, seconds in source.frames()]


def test_mp4_is_what_browsers_play(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert stream.codec_context.codec_tag == "avc1"
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a player can begin before the end


def test_without_pyav_opencv_does_all_as_before(tmp_path: Path, without_av: None):
    path = write_video(tmp_path / "x.mp4")
    with open_video(path) as source:
        frames = list(source.frames())
    assert [number(image) for image, _ in frames] == list(range(30))
    assert {seconds for _, seconds in frames} == {None}
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"FMP4")


def test_both_libraries_read_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "x.mp4")
    with open_video(path) as source:
        ours = list(source)
    monkeypatch.setitem(sys.modules, "av", None)
    with open_video(path) as source:
        theirs = list(source)
    assert len(ours) == len(theirs) == 30
    assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_times_of_frames_are_kept(tmp_path: Path, suffix: str):
    ticks = [0, 40, 80, 500, 520, 2000, 2010]
    source_path = write_times(tmp_path / f"in{suffix}", ticks)
    with (
        open_video(source_path) as source,
        VideoSink(tmp_path / f"out{suffix}", source.fps, SIZE) as sink,
    ):
        for image, seconds in source.frames():
            sink.write(image, seconds)
    expected = pytest.approx([tick / 1000 for tick in ticks], abs=1e-3)
    assert times(source_path) == expected
    assert times(tmp_path / f"out{suffix}") == expected


def test_a_rate_of_its_own_is_kept_exactly(tmp_path: Path):
    write_video(tmp_path / "x.mp4", fps=30000 / 1001)
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize("seconds", [[0.0, 0.0, 0.0], [3.0, 2.0, 1.0], [5.0, 5.0001, 5.0002]])
def test_times_that_do_not_grow_lose_no_frame(tmp_path: Path, seconds: list[float]):
    with VideoSink(tmp_path / "x.mp4", 25, SIZE) as sink:
        for index, second in enumerate(seconds):
            sink.write(numbered(index, SIZE), second)
    with open_video(tmp_path / "x.mp4") as source:
        assert [number(image) for image in source] == [0, 1, 2]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_phone_videos_are_upright(tmp_path: Path, rotation: int):
    path = write_times(tmp_path / "phone.mp4", [0, 40, 80], rotation=rotation)
    upright = cv2.cvtColor(read_all(path)[0][2], cv2.COLOR_BGR2RGB)
    with open_video(path) as source:
        assert (source.height, source.width) == upright.shape[:2]
        assert np.array_equal(list(source)[2], upright)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "gray", "yuv444p", "yuvj420p"])
def test_pixels_of_other_formats_are_read(tmp_path: Path, pix_fmt: str):
    path = write_times(tmp_path / "x.mp4", [0, 40, 80], pix_fmt)
    with open_video(path) as source:
        frames = list(source)
    assert [number(frame) for frame in frames] == [0, 1, 2]
    theirs = cv2.cvtColor(read_all(path)[0][2], cv2.COLOR_BGR2RGB)
    assert abs(frames[2].astype(int) - theirs).max() <= 3  # of 10 bits, the rounding differs


@pytest.mark.parametrize("fps", [0.5, 1, 240])
@pytest.mark.parametrize("frames", [1, 3])
def test_slow_and_fast_videos(tmp_path: Path, fps: float, frames: int):
    path = write_video(tmp_path / "x.mp4", frames, fps)
    with open_video(path) as source:
        assert source.fps == pytest.approx(fps) and len(list(source)) == frames


def test_the_frames_before_the_damage_are_read_and_the_damage_is_told(tmp_path: Path):
    path = write_video(tmp_path / "x.mp4")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) * 2 // 3])
    with open_video(path) as source:
        count = len(list(source))
    assert 0 < count < 30 == source.frame_count
    middle = content.index(b"mdat") + len(content) // 3
    content[middle : middle + 400] = os.urandom(400)
    path.write_bytes(content)
    with open_video(path) as source:
        assert len(list(source)) + source.damaged >= 29


def test_sound_alone_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match=r"sound\.mp4: .*no video in it, only sound"):
        open_video(path)


@pytest.mark.parametrize("name", ["a:b.mp4", "100%d.mp4", "ü 中.mp4", "-x.mp4", "http:x.mp4"])
def test_names_with_a_meaning_for_ffmpeg_are_names(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_video(Path(name), frames=3)
    with open_video(name) as source:
        assert len(list(source)) == 3
