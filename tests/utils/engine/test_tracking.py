"""Ids equal those of the library called by hand; crossings are counted; every Nth frame."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nets.inference.detections import Detections
from utils.core.errors import UserError
from utils.engine.tracking import make_follower, parse_line
from utils.engine.video_prediction import VideoOptions, predict_video
from utils.visualization.video import VideoSink, open_video

sv = pytest.importorskip("supervision")
trackers = pytest.importorskip("trackers")

WIDTH, HEIGHT, SIDE = 160, 120, 16
NAMES = ("bright",)


class Finder:
    """Detects a bright square in each third of the height."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray, /) -> Detections:
        self.calls += 1
        boxes = []
        for top in range(0, HEIGHT, HEIGHT // 3):
            rows, columns = np.nonzero(image[top : top + HEIGHT // 3, :, 1] > 140)
            if len(rows):
                rows += top
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        count = len(boxes)
        return Detections(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.linspace(0.95, 0.9, count, dtype=np.float32),
            labels=np.zeros(count, np.int64),
            names=NAMES,
            width=image.shape[1],
            height=image.shape[0],
        )


def write_moving(path: str, frames: int = 40) -> str:
    """The upper square moves right, the middle one left, the lower right, from frame 20 on."""
    with VideoSink(path, 25, (WIDTH, HEIGHT)) as sink:
        for index in range(frames):
            frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            way = index * (WIDTH - SIDE) // (frames - 1)
            frame[8 : 8 + SIDE, way : way + SIDE] = 250
            frame[48 : 48 + SIDE, WIDTH - SIDE - way : WIDTH - way] = 250
            if index >= 20:
                left = way - WIDTH // 2 + SIDE
                frame[88 : 88 + SIDE, left : left + SIDE] = 250
            sink.write(frame)
    return path


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def entries() -> list[dict]:
    return json.loads(Path("x.json").read_text())


@pytest.mark.parametrize("every", [1, 3])
def test_ids_equal_those_of_the_library_called_by_hand(every: int):
    options = VideoOptions(track="bytetrack", every=every)
    predict_video(Finder(), write_moving("in.mp4"), "out.mp4", "x.json", options=options)
    tracker = trackers.ByteTrackTracker(frame_rate=25 / every)
    finder, expected = Finder(), []
    with open_video("in.mp4") as source:
        for image in list(source)[::every]:
            found = finder(image)
            boxes = sv.Detections(found.boxes, confidence=found.scores, class_id=found.labels)
            tracked = tracker.update(boxes)
            pairs = zip(tracked.xyxy.tolist(), tracked.tracker_id.tolist(), strict=True)
            expected.append({tuple(box): number for box, number in pairs})
    ours = [
        {tuple(one["box"]): -1 if one["id"] is None else one["id"] for one in entry["detections"]}
        for entry in entries()
    ]
    assert ours == expected
    assert {number for frame in ours for number in frame.values()} >= {0, 1}


def test_crossings_are_counted_by_direction_and_told():
    options = VideoOptions(track="bytetrack", line="60,0,60,119")
    summary = predict_video(Finder(), write_moving("in.mp4"), "out.mp4", "x.json", options=options)
    ends = [entry["line"] for entry in entries()]
    assert ends[0] == {"in": 0, "out": 0} and len(ends) == 40
    assert ends[-1] == {"in": 2, "out": 1} == dict(summary.crossed)
    assert "line: 2 in, 1 out" in str(summary)
    assert "followed: 3\n" in str(summary)
    assert all(sum(a.values()) <= sum(b.values()) for a, b in pairwise(ends))
    with open_video("out.mp4") as video:
        last = list(video)[-1]
    assert last[40:44, 59:62].max() > 150  # the line is drawn


def test_a_tracker_that_follows_nothing_is_told():
    def unsure(image: np.ndarray) -> Detections:
        return replace(finder(image), scores=np.full(len(finder(image)), 0.3, np.float32))

    finder, options = Finder(), VideoOptions(track="bytetrack")
    summary = predict_video(unsure, write_moving("in.mp4"), "out.mp4", options=options)
    assert summary.counts and "followed: 0: trackers need higher scores" in str(summary)


def test_nothing_to_follow_for_long_is_no_problem():
    follow = make_follower("bytetrack", (0, 10, 99, 10), 25, 100, 100)
    nothing = Finder()(np.zeros((100, 100, 3), np.uint8))
    for _ in range(300):
        followed = follow(nothing)
    assert len(followed) == 0 and followed.to_json()["line"] == {"in": 0, "out": 0}


def test_only_every_nth_frame_is_detected_and_listed_and_all_are_written():
    finder = Finder()
    summary = predict_video(
        finder, write_moving("in.mp4"), "out.mp4", "x.json", options=VideoOptions(every=7)
    )
    assert [entry["frame"] for entry in entries()] == list(range(0, 40, 7))
    assert finder.calls == 6 and summary.done == 40
    assert summary.counts == {"bright": sum(len(entry["detections"]) for entry in entries())}
    with open_video("out.mp4") as video:
        frames = list(video)
    assert len(frames) == 40
    # the box of frame 0 is still there in frame 6, where the square has moved on
    assert frames[6][16, 0].max() > 100 and frames[7][16, 0].max() < 60


def test_more_than_there_are_frames_detects_the_first():
    finder = Finder()
    options = VideoOptions(every=1000)
    assert predict_video(finder, write_moving("in.mp4"), "out.mp4", options=options).done == 40
    assert finder.calls == 1


def test_several_videos_one_after_another():
    sources = [write_moving("a.mp4", 21), write_moving("b.mp4", 22)]
    summary = predict_video(Finder(), sources, "out", "x.json", options=VideoOptions(track="sort"))
    assert (summary.done, summary.out) == (43, Path("out"))
    assert [path.name for path in sorted(Path("out").iterdir())] == ["a.mp4", "b.mp4"]
    images = [entry["image"] for entry in entries()]
    assert images == [f"a.mp4#{i}" for i in range(21)] + [f"b.mp4#{i}" for i in range(22)]


@pytest.mark.parametrize(
    ("sources", "out", "options", "message"),
    [
        (["a.mp4", "b.mp4"], "x.mp4", VideoOptions(), "--out x.mp4 is a file name, but there are"),
        (["a.mp4", "c.mp4"], "out", VideoOptions(), "c.mp4: no such file"),
        (["rtsp://x", "a.mp4"], "out", VideoOptions(), "--source rtsp://x: a stream or camera"),
        (["0", "1"], "out", VideoOptions(), "--source 0: a stream or camera"),
        ("a.mp4", "out", VideoOptions(line="0,0,9,9"), "--line: .* add --track"),
        ("a.mp4", "out", VideoOptions(track="bytetrak"), "did you mean 'bytetrack'"),
        (
            "a.mp4",
            "out",
            VideoOptions(track="sort", line="500,500,900,900"),
            "outside of the image",
        ),
        ("a.mp4", "out", VideoOptions(track="sort", line="5,5,5,5"), "--line: expected two points"),
        (
            "a.mp4",
            "out",
            VideoOptions(track="sort", line="0,50,99999999999,50"),
            "--line: expected",
        ),
        ("a.mp4", "out", VideoOptions(track="sort", line="1,2,3"), "--line: expected two points"),
    ],
)
def test_what_is_not_possible_is_one_line(
    sources: list[str], out: str, options: VideoOptions, message: str
):
    write_moving("a.mp4", 2)
    write_moving("b.mp4", 2)
    with pytest.raises(UserError, match=message) as caught:
        predict_video(Finder(), sources, out, options=options)
    assert "\n" not in str(caught.value) and not Path("out").exists()


def test_a_line_may_leave_the_image():
    assert parse_line("-10,50,500,50") == (-10, 50, 500, 50)
    make_follower("sort", (-10, 50, 500, 50), 25, 100, 100)
