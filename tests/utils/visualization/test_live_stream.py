"""Streams that stall, end and come back, from readers that follow a script."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from utils.core.inputs import ReadError
from utils.visualization.live_stream import Frame, LiveStream

SCRIPT = list[object]  # a number: a frame of this brightness; an error: raised; "stall": nothing


class ScriptedReader:
    """Plays a script, then ends."""

    fps, frame_count, damaged = 25.0, None, 0

    def __init__(self, script: SCRIPT, finished: threading.Event) -> None:
        self.script, self.finished = script, finished

    def frames(self) -> Iterator[Frame]:
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            if step == "stall":
                self.finished.wait(30)
                return
            yield np.full((2, 2, 3), step, np.uint8), None

    def close(self) -> None:
        pass


@pytest.fixture
def connector() -> Iterator[Callable[..., Callable[[], ScriptedReader]]]:
    """Make a function that connects to one script after another, the last one again and again."""
    finished = threading.Event()

    def make(*scripts: SCRIPT) -> Callable[[], ScriptedReader]:
        numbers = itertools.count()

        def connect() -> ScriptedReader:
            script = scripts[min(next(numbers), len(scripts) - 1)]
            if script and isinstance(script[0], Exception):
                raise script[0]
            return ScriptedReader(script, finished)

        return connect

    yield make
    finished.set()


def values(stream: LiveStream) -> list[int]:
    return [int(image[0, 0, 0]) for image, _ in stream.frames()]


@pytest.mark.parametrize("end", [[], ["stall"], [ReadError("cut off")]])
def test_a_lost_stream_goes_on_when_it_is_back(connector, end: SCRIPT):
    refused: SCRIPT = [ReadError("refused")]
    connect = connector([1, 2, *end], refused, refused, [3, 4], refused)
    lines: list[str] = []
    stream = LiveStream(connect, "rtsp://x", 0.3, 2.0, lines.append, False)
    frames = stream.frames()
    assert [int(next(frames)[0][0, 0, 0]) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(ReadError, match="lost, and not back within 2 s: refused"):
        next(frames)
    assert "trying again for 2 s" in lines[0] and "rtsp://x: back after" in lines[1]
    assert "rtsp://x: the stream has ended; trying again" in lines[2] and len(lines) == 3


@pytest.mark.parametrize(
    ("script", "message"),
    [([1, "stall"], "no frame for 0.3 s: the stream has stalled"), ([1, ReadError("cut")], "cut")],
)
def test_without_reconnecting_a_lost_stream_is_an_error(connector, script: SCRIPT, message: str):
    stream = LiveStream(connector(script), "rtsp://x", 0.3, 0.0, print, False)
    with pytest.raises(ReadError, match=f"rtsp://x: {message}"):
        values(stream)


def test_without_reconnecting_the_end_is_the_end(connector):
    assert values(LiveStream(connector([1, 2, 3]), "rtsp://x", 0.3, 0.0, print, False)) == [1, 2, 3]


def test_a_stream_that_never_answers_is_refused_in_time(connector):
    start = time.monotonic()
    with pytest.raises(ReadError, match="no frame for"):
        LiveStream(connector(["stall"]), "rtsp://x", 0.2, 60.0, print, False)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("script", [[1, "stall"], [1, ReadError("cut")]])
def test_a_reader_that_waits_can_be_stopped(connector, script: SCRIPT):
    connect = connector(script, [ReadError("refused")])
    stream = LiveStream(connect, "rtsp://x", 60.0, 60.0, lambda line: None, False)
    threading.Timer(0.3, stream.stop).start()
    start = time.monotonic()
    assert values(stream) == [1]
    assert time.monotonic() - start < 5
