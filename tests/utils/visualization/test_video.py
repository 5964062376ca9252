"""Video in, video out: no frame lost or reordered, the frame rate kept, the file playable after an error."""

import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from nets.inference.detections import Detections
from utils.visualization import video
from utils.visualization.video import VideoSink, open_video, process_video

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


def nothing(frame: np.ndarray) -> Detections:
    return found(frame, 0)


def found(frame: np.ndarray, count: int) -> Detections:
    height, width = frame.shape[:2]
    boxes = np.tile(np.array([[2, 2, 20, 20]], np.float32), (count, 1))
    scores = np.full(count, 0.9, np.float32)
    return Detections(boxes, scores, np.zeros(count, np.int64), ("cat",), width, height)


class FakeSource(video.VideoSource):
    """Frames from a generator, without a capture."""

    def __init__(self, frames, is_camera: bool, fps: float = 25.0) -> None:
        self.frames, self.is_camera, self.fps, self.name = frames, is_camera, fps, "fake"
        self.width, self.height, self.frame_count, self.note = 96, 64, None, None

    def __iter__(self):
        return iter(self.frames)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4", ".mov", ".mkv"])
@pytest.mark.parametrize("fps", [29.97, 25, 23.976, 60])
def test_frames_order_and_rate_survive(tmp_path: Path, suffix: str, fps: float):
    source_path = write_video(tmp_path / f"in{suffix}", fps=fps)
    seen: list[int] = []
    indices: list[int] = []

    def predict(frame: np.ndarray) -> Detections:
        seen.append(number(frame))
        return found(frame, 2)

    with (
        open_video(source_path) as source,
        VideoSink(tmp_path / f"out{suffix}", source.fps, (96, 64)) as sink,
    ):
        assert (source.width, source.height, source.frame_count, source.is_camera) == (
            96,
            64,
            30,
            False,
        )
        result = process_video(
            source, sink, partial(map, predict), lambda index, detections: indices.append(index)
        )
    assert seen == indices == list(range(30))
    assert (
        result.frames == 30
        and result.counts == {"cat": 60}
        and result.seconds > 0
        and not result.stopped
    )
    frames, rate = read_all(tmp_path / f"out{suffix}")
    assert [number(frame) for frame in frames] == list(range(30))
    assert rate == pytest.approx(fps, abs=1e-3)
    assert frames[0][:22, :22].std() > 10  # the boxes were drawn


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


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_error_in_predict_is_raised_and_the_file_plays(tmp_path: Path, error: BaseException):
    write_video(tmp_path / "in.mp4")
    calls = iter(range(100))

    def predict(frame: np.ndarray) -> Detections:
        if next(calls) == 12:
            raise error
        return nothing(frame)

    threads = threading.active_count()
    with (
        pytest.raises(type(error)),
        open_video(tmp_path / "in.mp4") as source,
        VideoSink(tmp_path / "out.mp4", source.fps, (96, 64)) as sink,
    ):
        process_video(source, sink, partial(map, predict))
    assert [number(frame) for frame in read_all(tmp_path / "out.mp4")[0]] == list(range(12))
    assert threading.active_count() == threads


def test_an_error_in_the_writer_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "in.mp4")
    for failing in (3, 29):  # while detection still runs, and after its last frame

        def write(self: VideoSink, rgb: np.ndarray, failing: int = failing) -> None:
            if self.frames == failing:
                raise OSError("disk full")
            self.frames += 1

        with (
            open_video(tmp_path / "in.mp4") as source,
            VideoSink(tmp_path / "out.mp4", 25, (96, 64)) as sink,
        ):
            monkeypatch.setattr(VideoSink, "write", write)
            with pytest.raises(OSError, match="disk full"):
                process_video(source, sink, partial(map, nothing))
            monkeypatch.undo()


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
            partial(map, nothing),
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
        return nothing(frame)

    result = process_video(FakeSource(frames(), False), None, partial(map, predict))
    assert result.frames == 30
    assert max(prefetch) <= video.QUEUE + 2  # the queue, one in the decoder's hand, one in work


def test_a_slow_writer_holds_detection_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    predicted, prefetch = [], []

    def write(self: VideoSink, rgb: np.ndarray) -> None:
        time.sleep(0.005)
        self.frames += 1
        prefetch.append(len(predicted) - self.frames)

    monkeypatch.setattr(VideoSink, "write", write)
    with VideoSink(tmp_path / "x.mp4", 25, (96, 64)) as sink:
        frames = (numbered(index, (96, 64)) for index in range(30))
        process_video(
            FakeSource(frames, False),
            sink,
            partial(map, nothing),
            lambda index, _: predicted.append(index),
        )
    assert len(prefetch) == 30 and max(prefetch) <= video.QUEUE + 2


def test_stages_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pause, count = 0.02, 20

    def frames():
        for index in range(count):
            time.sleep(pause)
            yield numbered(index, (96, 64))

    def predict(frame: np.ndarray) -> Detections:
        time.sleep(pause)
        return nothing(frame)

    def write(self: VideoSink, rgb: np.ndarray) -> None:
        time.sleep(pause)
        self.frames += 1

    monkeypatch.setattr(VideoSink, "write", write)
    with VideoSink(tmp_path / "x.mp4", 25, (96, 64)) as sink:
        result = process_video(FakeSource(frames(), False), sink, partial(map, predict))
    assert result.seconds < 2 * count * pause  # one after the other would take three times


def test_a_camera_gives_the_newest_frame_and_its_recording_keeps_real_time(tmp_path: Path):
    def frames():
        for index in range(31):
            time.sleep(0.01)
            yield numbered(index, (96, 64))

    seen: list[int] = []

    def predict(frame: np.ndarray) -> Detections:
        time.sleep(0.05)
        seen.append(number(frame))
        return nothing(frame)

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

        def show(self, rgb: np.ndarray) -> bool:
            shown.append(rgb)
            return len(shown) < 3

        def close(self) -> None: ...

    monkeypatch.setattr(video, "Window", Screen)

    def slow(frame: np.ndarray) -> Detections:
        time.sleep(0.005)
        return nothing(frame)

    source = FakeSource((numbered(i % 30, (96, 64)) for i in range(1000)), False)
    result = process_video(source, None, partial(map, slow), window=True)
    assert result.stopped and len(shown) == 3 and result.frames < 1000
