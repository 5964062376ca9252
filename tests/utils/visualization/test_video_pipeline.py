"""Detection in videos: frames in order, none lost; overlapping threads; a playable file."""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numbered_video import number, numbered, read_all, write_video

from nets.inference.detections import Detections
from utils.visualization import video_pipeline
from utils.visualization.video import VideoSink, VideoSource, open_video
from utils.visualization.video_pipeline import QUEUE_SIZE, process_video


def no_detections(frame: np.ndarray) -> Detections:
    return make_detections(frame, 0)


def make_detections(frame: np.ndarray, count: int) -> Detections:
    height, width = frame.shape[:2]
    boxes = np.tile(np.array([[2, 2, 20, 20]], np.float32), (count, 1))
    scores = np.full(count, 0.9, np.float32)
    return Detections(boxes, scores, np.zeros(count, np.int64), ("cat",), width, height)


class FakeSource(VideoSource):
    """Frames from a generator, without a capture."""

    def __init__(self, frames, is_camera: bool, fps: float = 25.0) -> None:
        self.images, self.is_camera, self.fps, self.name = frames, is_camera, fps, "fake"
        self.width, self.height, self.frame_count, self.note = 96, 64, None, None

    def frames(self):
        return ((image, None) for image in self.images)

    def stop(self) -> None:
        pass


class FakeSink(VideoSink):
    """Counts frames and hands them to a function, without a file."""

    def __init__(self, on_write: Callable[["FakeSink", np.ndarray], None]) -> None:
        self.on_write, self.fps, self.frames, self.keeps_times = on_write, 25.0, 0, True

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        self.on_write(self, frame)
        self.frames += 1


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4", ".mov", ".mkv"])
@pytest.mark.parametrize("fps", [29.97, 25, 23.976, 60])
def test_frames_order_and_rate_survive(tmp_path: Path, suffix: str, fps: float):
    source_path = write_video(tmp_path / f"in{suffix}", fps=fps)
    seen: list[int] = []
    indices: list[int] = []

    def predict(frame: np.ndarray) -> Detections:
        seen.append(number(frame))
        return make_detections(frame, 2)

    with (
        open_video(source_path) as source,
        VideoSink(tmp_path / f"out{suffix}", source.fps, (96, 64)) as sink,
    ):
        assert (source.width, source.height, source.frame_count) == (96, 64, 30)
        assert not source.is_camera
        result = process_video(
            source, sink, partial(map, predict), lambda index, detections: indices.append(index)
        )
    assert seen == indices == list(range(30))
    assert (result.frames, result.counts, result.stopped) == (30, {"cat": 60}, False)
    assert result.seconds > 0
    frames, rate = read_all(tmp_path / f"out{suffix}")
    assert [number(frame) for frame in frames] == list(range(30))
    assert rate == pytest.approx(fps, abs=1e-3)
    assert frames[0][:22, :22].std() > 10  # the boxes were drawn


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_error_in_predict_is_raised_and_the_file_plays(tmp_path: Path, error: BaseException):
    write_video(tmp_path / "in.mp4")
    calls = iter(range(100))

    def predict(frame: np.ndarray) -> Detections:
        if next(calls) == 12:
            raise error
        return no_detections(frame)

    threads = threading.active_count()
    with (
        pytest.raises(type(error)),
        open_video(tmp_path / "in.mp4") as source,
        VideoSink(tmp_path / "out.mp4", source.fps, (96, 64)) as sink,
    ):
        process_video(source, sink, partial(map, predict))
    assert [number(frame) for frame in read_all(tmp_path / "out.mp4")[0]] == list(range(12))
    assert threading.active_count() == threads


@pytest.mark.parametrize("failing", [3, 29])  # while detection runs, and after its last frame
def test_an_error_in_the_writer_is_raised(tmp_path: Path, failing: int):
    write_video(tmp_path / "in.mp4")

    def write(sink: FakeSink, frame: np.ndarray) -> None:
        if sink.frames == failing:
            raise OSError("disk full")

    with (
        open_video(tmp_path / "in.mp4") as source,
        pytest.raises(OSError, match="disk full"),
    ):
        process_video(source, FakeSink(write), partial(map, no_detections))


def test_an_error_in_the_decoder_is_raised_after_the_good_frames(tmp_path: Path):
    def frames():
        for index in range(5):
            yield numbered(index, (96, 64))
        raise RuntimeError("bad stream")

    seen: list[int] = []
    with pytest.raises(RuntimeError, match="bad stream"):
        process_video(
            FakeSource(frames(), False),
            None,
            partial(map, no_detections),
            lambda index, _: seen.append(index),
        )
    assert seen == list(range(5))


def test_a_slow_consumer_loses_nothing_and_few_frames_wait():
    decoded = 0
    prefetch: list[int] = []

    def frames():
        nonlocal decoded
        for index in range(30):
            decoded += 1
            yield numbered(index, (96, 64))

    def predict(frame: np.ndarray) -> Detections:
        time.sleep(0.005)
        prefetch.append(decoded - number(frame))
        return no_detections(frame)

    result = process_video(FakeSource(frames(), False), None, partial(map, predict))
    assert result.frames == 30
    assert max(prefetch) <= QUEUE_SIZE + 2  # the queue, one being decoded, one being detected


def test_a_slow_writer_holds_detection_back():
    predicted, prefetch = [], []

    def write(sink: FakeSink, frame: np.ndarray) -> None:
        time.sleep(0.005)
        prefetch.append(len(predicted) - sink.frames - 1)

    frames = (numbered(index, (96, 64)) for index in range(30))
    process_video(
        FakeSource(frames, False),
        FakeSink(write),
        partial(map, no_detections),
        lambda index, _: predicted.append(index),
    )
    assert len(prefetch) == 30 and max(prefetch) <= QUEUE_SIZE + 2


def test_stages_overlap():
    """Frame 4 is decoded, frame 2 detected and frame 0 written at the same time."""
    meeting = threading.Barrier(3)

    def frames():
        for index in range(8):
            if index == 4:
                meeting.wait(30)
            yield numbered(index, (96, 64))

    def predict(frame: np.ndarray) -> Detections:
        if number(frame) == 2:
            meeting.wait(30)
        return no_detections(frame)

    def write(sink: FakeSink, frame: np.ndarray) -> None:
        if number(frame) == 0:
            meeting.wait(30)

    result = process_video(FakeSource(frames(), False), FakeSink(write), partial(map, predict))
    assert result.frames == 8


def test_a_camera_gives_the_newest_frame_and_its_recording_keeps_real_time(tmp_path: Path):
    def frames():
        for index in range(31):
            time.sleep(0.01)
            yield numbered(index, (96, 64))

    seen: list[int] = []

    def predict(frame: np.ndarray) -> Detections:
        time.sleep(0.05)
        seen.append(number(frame))
        return no_detections(frame)

    with VideoSink(tmp_path / "cam.avi", 100, (96, 64)) as sink:
        result = process_video(FakeSource(frames(), True, 100), sink, partial(map, predict))
    assert seen == sorted(set(seen)) and seen[-1] == 30
    assert result.frames == len(seen) < 31
    assert (
        100 * result.seconds - 40 < sink.frames <= 100 * result.seconds
    )  # one a detection would play too fast
    assert sink.frames > 1.5 * result.frames


def test_ctrl_c_is_the_usual_end_of_a_camera():
    def predict(frame: np.ndarray) -> Detections:
        raise KeyboardInterrupt

    result = process_video(
        FakeSource((numbered(0, (96, 64)) for _ in range(3)), True), None, partial(map, predict)
    )
    assert result.stopped and result.frames == 0


def test_the_window_ends_with_a_key(monkeypatch: pytest.MonkeyPatch):
    shown: list[np.ndarray] = []

    class Screen:
        def __init__(self, title: str) -> None: ...

        def show(self, frame: np.ndarray) -> bool:
            shown.append(frame)
            return len(shown) < 3

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(video_pipeline, "Window", Screen)

    def slow(frame: np.ndarray) -> Detections:
        time.sleep(0.005)
        return no_detections(frame)

    source = FakeSource((numbered(i % 30, (96, 64)) for i in range(1000)), False)
    result = process_video(source, None, partial(map, slow), window=True)
    assert result.stopped and len(shown) == 3 and result.frames < 1000
