"""Images, folders and video through a stub model: files, JSON, counts and errors."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from nets.inference.detections import Detections
from utils.core.errors import UserError
from utils.core.images import read_image, write_image
from utils.core.schema import PredictConfig
from utils.engine import video_prediction
from utils.engine.experiment import Result
from utils.engine.image_prediction import predict_images
from utils.engine.outputs import Summary, json_list, new_output_folder
from utils.engine.prediction import PredictOptions, predict
from utils.engine.sources import find_mode, image_files, image_folder
from utils.engine.speed import measure_fps
from utils.engine.video_prediction import predict_video
from utils.visualization.video import VideoSink, VideoSource, open_video


class Stub:
    """Detects a cat in the left half of every image, and a Hündin in those wider than 50 pixels."""

    input_size = (64, 96)

    def __init__(self) -> None:
        self.config = SimpleNamespace(predict=PredictConfig())
        self.calls = 0

    def __call__(self, image: np.ndarray, /) -> Detections:
        self.calls += 1
        height, width = image.shape[:2]
        count = 2 if width > 50 else 1
        boxes = np.array([[0, 0, width / 2, height], [1, 1, width, height]], np.float32)[:count]
        scores, labels = np.array([0.9, 0.51239], np.float32)[:count], np.arange(count)
        return Detections(boxes, scores, labels, ("cat", "Hündin"), width, height)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default output is below the working directory."""
    monkeypatch.chdir(tmp_path)


def write_gray(path: str | Path, width: int = 40, height: int = 30) -> str:
    write_image(path, np.full((height, width, 3), 90, np.uint8))
    return str(path)


def files(folder: str | Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    )


def test_json_follows_the_contract(tmp_path: Path):
    paths = [write_gray("a.png"), write_gray("wide.png", 60, 20)]
    summary = predict_images(Stub(), image_files(paths), "out", "sub/detections.json")
    text = Path("sub/detections.json").read_text(encoding="utf-8")
    entries = json.loads(text)
    assert [(entry["image"], entry["width"], entry["height"]) for entry in entries] == [
        ("a.png", 40, 30),
        ("wide.png", 60, 20),
    ]
    assert entries[0]["detections"] == [
        {"box": [0, 0, 20, 30], "score": 0.9, "class": 0, "name": "cat"}
    ]
    assert entries[1]["detections"][1] == {
        "box": [1, 1, 60, 20],
        "score": 0.5124,
        "class": 1,
        "name": "Hündin",
    }
    assert "Hündin" in text
    assert summary.counts == {"cat": 2, "Hündin": 1}
    assert "2 images, 3 objects" in str(summary) and "Hündin  1" in str(summary)


def test_default_folders_count_up_and_images_are_drawn_on():
    path = write_gray("a.jpg", 60, 60)
    for name in ("predict", "predict-2", "predict-3"):
        summary = predict_images(Stub(), image_files([path]))
        assert summary.out == Path("runs") / name
        drawn = read_image(Path("runs") / name / "a.jpg")
        assert drawn.shape == (60, 60, 3) and drawn.std() > 5
    assert (read_image(path) == 90).all()


def test_nothing_is_overwritten():
    for folder in ("x", "y"):
        write_gray(f"{folder}/a.png")
    write_gray("x/a.jpg")
    sources = ["x/a.png", "y/a.png", "x/a.jpg"]
    predict_images(Stub(), image_files(sources), "out")
    assert files("out") == ["a-2.png", "a.jpg", "a.png"]
    predict_images(Stub(), image_files(["x/a.png"]), "x")  # the sources' own folder
    assert (read_image("x/a.png") == 90).all() and files("x") == ["a-2.png", "a.jpg", "a.png"]


def test_one_image_may_go_to_a_named_file_but_not_onto_itself():
    path = write_gray("a.png")
    assert predict_images(Stub(), image_files([path]), "result.jpg").out == Path("result.jpg")
    assert Path("result.jpg").is_file()
    with pytest.raises(UserError, match="would overwrite"):
        predict_images(Stub(), image_files([path]), "a.png")
    with pytest.raises(UserError, match="2 images"):
        predict_images(Stub(), image_files([path, path]), "result.png")


def predict_folder(folder: str, *outputs: str) -> Summary:
    return predict_images(Stub(), image_folder(folder), *outputs)


def test_folder_keeps_subfolders_and_takes_upper_case_suffixes():
    for name in ("b.PNG", "sub/deep/b.jpg", "sub/b.png"):
        write_gray(f"in/{name}")
    Path("in/notes.txt").write_text("no image")
    summary = predict_folder("in", "out", "out.json")
    assert summary.done == 3 and files("out") == ["b.PNG", "sub/b.png", "sub/deep/b.jpg"]
    assert [entry["image"] for entry in json.loads(Path("out.json").read_text())] == files("out")


def test_a_corrupt_file_is_skipped_in_a_folder_and_an_error_as_a_source(capsys):
    write_gray("in/good.png")
    Path("in/bad.jpg").write_bytes(b"not an image")
    summary = predict_folder("in", "out", "detections.json")
    assert summary.done == 1 and len(summary.skipped) == 1 and "bad.jpg" in summary.skipped[0]
    assert "bad.jpg" in capsys.readouterr().err and "skipped 1" in str(summary)
    assert (
        files("out") == ["good.png"] and len(json.loads(Path("detections.json").read_text())) == 1
    )
    with pytest.raises(UserError, match=r"bad\.jpg"):
        predict_images(Stub(), image_files(["in/good.png", "in/bad.jpg"]), "out2")


def test_a_folder_without_a_readable_image_is_an_error():
    Path("in").mkdir()
    with pytest.raises(UserError, match="no images"):
        predict_folder("in")
    Path("in/bad.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 1 images.*bad\.jpg"):
        predict_folder("in")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: image_folder("nowhere"), "does not exist"),
        (lambda: image_folder("photo.png"), "--mode image"),
        (lambda: image_files(["foto.png"]), "did you mean 'photo.png'"),
        (lambda: image_files(["."]), "--mode dir"),
        (lambda: predict(PredictOptions(mode="dir", source=["a", "b"])), "--mode dir takes one"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(call, words):
    write_gray("photo.png")
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def clip(path: str = "clip.mp4", frames: int = 8) -> str:
    with VideoSink(path, 29.97, (64, 48)) as sink:
        for index in range(frames):
            sink.write(np.full((48, 64, 3), 20 * index, np.uint8))
    return path


def test_video_gives_one_entry_per_frame_and_a_playable_file():
    summary = predict_video(Stub(), clip(), None, "detections.json")
    assert summary.out == Path("runs/predict/clip.mp4")
    with open_video(summary.out) as video:
        assert video.fps == pytest.approx(29.97) and len(list(video)) == 8
    entries = json.loads(Path("detections.json").read_text(encoding="utf-8"))
    assert [entry["image"] for entry in entries] == [f"clip.mp4#{index}" for index in range(8)]
    assert [entry["frame"] for entry in entries] == list(range(8))
    assert entries[0]["width"] == 64 and len(entries[0]["detections"]) == 2
    assert summary.counts == {"cat": 8, "Hündin": 8} and "8 frames" in str(summary)


@pytest.mark.parametrize("camera", [True, False])
def test_only_a_file_s_frames_may_be_taken_ahead(camera: bool, monkeypatch: pytest.MonkeyPatch):
    streamed: list[np.ndarray] = []

    def opened(source: str, *options) -> VideoSource:
        video = open_video(source, *options)
        video.is_camera = camera
        return video

    def detect_stream(model: Stub, frames: Iterable[np.ndarray]) -> Iterator[Detections]:
        for frame in frames:
            streamed.append(frame)
            yield model(frame)

    monkeypatch.setattr(video_prediction, "open_video", opened)
    monkeypatch.setattr(video_prediction, "detect_stream", detect_stream)
    summary = predict_video(Stub(), clip(), "out.mp4")
    assert summary.done > 0 and len(streamed) == (0 if camera else 8)


ADDRESS = "rtsp://me:secret@cam/live"


def test_the_login_of_a_stream_is_not_written(monkeypatch: pytest.MonkeyPatch):
    clip()
    monkeypatch.setattr(
        video_prediction, "open_video", lambda source, *options: open_video("clip.mp4", *options)
    )
    predict_video(Stub(), ["clip.mp4", ADDRESS], "out", "detections.json")
    entries = json.loads(Path("detections.json").read_text(encoding="utf-8"))
    images = [f"{name}#{i}" for name in ("clip.mp4", "rtsp://cam/live") for i in range(8)]
    assert [entry["image"] for entry in entries] == images


@pytest.mark.parametrize(
    "call",
    [
        lambda: predict_video(Stub(), [ADDRESS, "clip.mp4"], "out"),
        lambda: find_mode([ADDRESS, "photo.png"]),
        lambda: find_mode(["clip.mp4", ADDRESS + ".jpg"]),
        lambda: image_files([ADDRESS]),
    ],
)
def test_the_login_of_a_stream_is_not_shown(call: Callable[[], object]):
    with pytest.raises(UserError, match="rtsp://cam/live") as caught:
        call()
    assert "secret" not in str(caught.value)


def test_video_output_may_be_a_folder_but_not_the_source():
    assert predict_video(Stub(), clip(), "folder").out == Path("folder/clip.mp4")
    assert predict_video(Stub(), clip(), "folder").out == Path("folder/clip-2.mp4")
    with pytest.raises(UserError, match="would overwrite"):
        predict_video(Stub(), "clip.mp4", "./clip.mp4")
    with pytest.raises(UserError, match="video file"):
        predict_video(Stub(), "clip.mp4", "result.jpg")
    with open_video("clip.mp4") as video:
        assert len(list(video)) == 8


def test_json_is_closed_after_an_error():
    class Failing(Stub):
        def __call__(self, image: np.ndarray, /) -> Detections:
            if self.calls == 3:
                raise RuntimeError("boom")
            return super().__call__(image)

    with pytest.raises(RuntimeError, match="boom"):
        predict_video(Failing(), clip(), "out.mp4", "detections.json")
    assert len(json.loads(Path("detections.json").read_text(encoding="utf-8"))) == 3
    with open_video("out.mp4") as video:
        assert len(list(video)) == 3


def test_a_truncated_count_is_noted(monkeypatch: pytest.MonkeyPatch, capsys):
    from utils.visualization import video

    original = video.VideoSource.__init__

    def claims_more(self, *args) -> None:
        original(self, *args)
        self.frame_count = 100

    monkeypatch.setattr(video.VideoSource, "__init__", claims_more)
    predict_video(Stub(), clip(), "out.mp4")
    assert "8 of 100 frames" in capsys.readouterr().err


def test_json_list_of_nothing_and_in_an_impossible_place():
    with json_list("empty.json"):
        pass
    assert json.loads(Path("empty.json").read_text()) == []
    with pytest.raises(UserError, match="cannot write"), json_list("empty.json/x.json"):
        pass


def test_a_new_folder_below_a_file_is_a_user_error():
    Path("runs").write_text("in the way")
    with pytest.raises(UserError, match="cannot make folder"):
        new_output_folder()


def test_speed_is_that_of_the_detector():
    class Slow(Stub):
        def __call__(self, image: np.ndarray, /) -> Detections:
            end = time.perf_counter() + 0.01
            while time.perf_counter() < end:
                pass
            return super().__call__(image)

        def backend(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
            assert canvas.shape == (1, 64, 96, 3) and canvas.dtype == torch.uint8
            return torch.zeros(1, 5, 4), torch.zeros(1, 5, 2)

    Slow.backend.name, Slow.backend.precision = "stub", "fp32"
    detector = Slow()
    speed = measure_fps(detector, np.zeros((30, 40, 3), np.uint8), seconds=0.2)
    assert 10 <= speed.low <= speed.median <= speed.high
    assert speed.fps == pytest.approx(1000 / speed.median)
    assert detector.calls > speed.runs >= 3  # the warm-up is not measured
    assert speed.network < speed.median and speed.overhead > 0
    assert "96x64, batch 1, stub, fp32" in str(speed) and "network alone" in str(speed)


def test_the_report_names_the_network_and_what_hides_its_detections(
    trained: Result, capsys: pytest.CaptureFixture[str]
):
    image = write_gray("a.png")
    summary = predict(PredictOptions(source=[image], weights=str(trained.run), score=1.0))
    assert f"{trained.run}/best.pt: 6 classes, phi none, 64x64, cpu" in capsys.readouterr().out
    assert "nothing scores 1; a lower --score shows what is less certain" in str(summary)
    assert str(summary).startswith("1 image, 0 objects, ")
