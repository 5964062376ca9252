"""predict.py: images, folders, videos, options and overrides, speed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import predict as predict_cli
from utils.core.images import write_image
from utils.engine.experiment import Result
from utils.visualization.video import VideoSink, open_video


def test_predict_image_folder_and_video(trained: Result, call: Callable[..., int], capsys):
    weights = ("--weights", trained.run, "--score", 0, "--device", "cpu")
    rng = np.random.default_rng(0)
    for name in ("in/a.png", "in/sub/b.JPG"):
        write_image(name, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    Path("in/broken.png").write_bytes(b"no image")
    with VideoSink("in/clip.mp4", 12.5, (64, 48)) as sink:
        for _ in range(5):
            sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))

    image = ("--source", "in/a.png", "--out", "a.png", "--json", "a.json")
    assert call(predict_cli, *weights, *image) == 0
    (entry,) = json.loads(Path("a.json").read_text())
    assert (entry["image"], entry["width"], entry["height"]) == ("in/a.png", 60, 40)
    assert Path("a.png").is_file()

    folder = ("--mode", "dir", "--source", "in", "--out", "out")
    assert call(predict_cli, *weights, *folder) == 0
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")}
    assert written == {"a.png", "sub/b.JPG"}
    assert "broken.png" in capsys.readouterr().err

    video = ("--mode", "video", "--source", "in/clip.mp4", "--out", "out.mp4", "--json", "v.json")
    assert call(predict_cli, *weights, *video) == 0
    with open_video("out.mp4") as written_video:
        assert written_video.fps == pytest.approx(12.5) and len(list(written_video)) == 5
    assert [entry["frame"] for entry in json.loads(Path("v.json").read_text())] == list(range(5))
    assert "5 frames" in capsys.readouterr().out


def test_predict_finds_the_mode_and_takes_overrides(
    trained: Result, call: Callable[..., int], capsys
):
    rng = np.random.default_rng(0)
    for name in ("in/a.png", "in/sub/b.png", "c.png"):
        write_image(name, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    with VideoSink("clip.mp4", 12.5, (64, 48)) as sink:
        sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    weights = ("--weights", trained.run, "device=cpu", "predict.score=0")

    both = (
        "--source",
        "in",
        "c.png",
        "predict.max_detections=3",
        "--save",
        "json",
        "--save",
        "txt",
    )
    assert call(predict_cli, *both, "input_size=96", "--out", "o", *weights) == 0
    entries = json.loads(Path("o/detections.json").read_text())
    assert [entry["image"] for entry in entries] == ["a.png", "sub/b.png", "c.png"]
    assert {len(entry["detections"]) for entry in entries} == {3}
    assert len(list(Path("o/labels").rglob("*.txt"))) == 3

    video = ("--source", "clip.mp4", "--classes", "star", "ring", "--json", "v.json")
    assert call(predict_cli, *video, *weights, "--out", "v.mp4") == 0
    (frame,) = json.loads(Path("v.json").read_text())
    assert {found["name"] for found in frame["detections"]} == {"star", "ring"}
    capsys.readouterr()

    option_wins = ("--source", "c.png", "--score", 1, "--json", "c.json")
    assert call(predict_cli, *option_wins, *weights) == 0
    assert json.loads(Path("c.json").read_text())[0]["detections"] == []


def test_speed(trained: Result, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys):
    from utils.engine import speed

    monkeypatch.setattr(speed.measure_fps, "__defaults__", (0.05,))
    assert call(predict_cli, "--mode", "fps", "--weights", trained.run) == 0
    assert "images/s" in capsys.readouterr().out
