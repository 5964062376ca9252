"""Frames detected side by side: results as one by one, in order, and nothing left behind."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.streaming import MAX_WORKERS, detect_stream
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import load_config


class Forgetful(nn.Module):
    """A block that keeps its last input, as drawn ones do: two frames at once would mix."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        own = self.seen = x.mean((2, 3), keepdim=True)
        time.sleep(0.01)  # another thread's turn
        assert self.seen is own
        return x * own.sigmoid()


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def detector_of(*overrides: str) -> Detector:
    config = load_config(
        "shapes.yaml", ["input_size=64", "precision=fp32", "predict.score=0.01", *overrides]
    )
    torch.manual_seed(0)
    return Detector(build_model(config, 3), config, list("abc"), backend="torch")


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 40 + index % 5, 3), dtype=np.uint8) for index in range(count)]


@pytest.mark.parametrize("phi", ["none", "cbam", f"{__name__}:Forgetful"])
def test_frames_are_detected_as_one_by_one_and_in_order(phi: str, threads: int):
    detector, frames = detector_of(f"phi={phi}"), images(12)
    found = list(detect_stream(detector, iter(frames)))
    assert [one.width for one in found] == [frame.shape[1] for frame in frames]
    for got, expected in zip(found, [detector(frame) for frame in frames], strict=True):
        assert len(got) > 0 and got.labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)
    torch.set_num_threads(1)  # each worker's share: then even bit for bit
    for got, expected in zip(found, [detector(frame) for frame in frames], strict=True):
        np.testing.assert_array_equal(got.boxes, expected.boxes)
        np.testing.assert_array_equal(got.scores, expected.scores)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The thread of each detection and PyTorch's number of threads in it."""
    seen: list[tuple[str, int]] = []
    detect = Detector.__call__

    def watching(self: Detector, frame: np.ndarray) -> Detections:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return detect(self, frame)

    monkeypatch.setattr(Detector, "__call__", watching)
    return seen


def test_each_thread_has_its_share_and_all_is_as_before_afterwards(
    threads: int, monkeypatch: pytest.MonkeyPatch
):
    seen = watched(monkeypatch)
    assert len(list(detect_stream(detector_of(), images(8)))) == 8
    assert {count for _, count in seen} == {1} and {name.split("_")[0] for name, _ in seen} == {
        "detect"
    }
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("detect")]
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == threads and later == [threads]


@pytest.mark.parametrize("alone", ["one thread", "another backend", "a function"])
def test_frame_by_frame_where_side_by_side_gains_nothing(
    alone: str, threads: int, monkeypatch: pytest.MonkeyPatch
):
    seen, detector = watched(monkeypatch), detector_of()
    if alone == "one thread":
        torch.set_num_threads(1)
    elif alone == "another backend":
        monkeypatch.setattr(type(detector.backend), "name", "other")
    given = (lambda frame: detector(frame)) if alone == "a function" else detector
    assert len(list(detect_stream(given, images(3)))) == 3
    assert {name for name, _ in seen} == {threading.current_thread().name}


def test_frames_are_taken_a_few_ahead_and_an_early_end_leaves_no_thread(threads: int):
    taken: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for index, frame in enumerate(images(50)):
            taken.append(index)
            yield frame

    found = detect_stream(detector_of(), frames())
    next(found)
    assert len(taken) <= MAX_WORKERS + 1
    found.close()  # type: ignore[attr-defined]  # a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("detect")]


def test_an_error_in_taking_a_frame_comes_after_the_good_ones(threads: int):
    def frames() -> Iterator[np.ndarray]:
        yield from images(3)
        raise OSError("the disk is gone")

    found: list[Detections] = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(detect_stream(detector_of(), frames()))
    assert len(found) == 3


def test_an_error_in_a_frame_comes_in_its_place(threads: int):
    frames = images(6)
    frames[3] = frames[3][:, :, :1]
    found: list[Detections] = []
    with pytest.raises(Exception, match=r"expected an RGB uint8 array"):
        found.extend(detect_stream(detector_of(), frames))
    assert len(found) == 3 and torch.get_num_threads() == threads
