"""Images of a dataset, for commands that are given none."""

import os
from pathlib import Path

import numpy as np
import pytest

from nets.loading import load_model
from utils.core.errors import UserError
from utils.core.images import write_image
from utils.engine.experiment import Result
from utils.engine.sources import (
    find_mode,
    image_files,
    image_folder,
    image_sources,
    is_video,
    validation_images,
)
from utils.visualization.video import VideoSink


def test_validation_images_are_those_of_the_data(trained: Result):
    images = validation_images(load_model(trained.run).config, 5)
    expected = [detections.image for detections in trained.evaluation.detections[:5]]
    assert [image.name for image in images] == expected
    assert all(image.read().shape == (64, 64, 3) for image in images)


def test_only_regular_files_are_images(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "a.png").touch()
    for source, message in (
        (tmp_path / "fifo.png", "is a FIFO, expected a file"),
        ("/dev/null", "is a device, expected a file"),
        (tmp_path, "use --mode dir"),
        (tmp_path / "aa.png", "no such file; did you mean 'a.png'"),
        ("http://host/a.png", "--source http://host/a.png: is an address"),
        ("x" * 5000, "file name too long"),
    ):
        with pytest.raises(UserError, match=message):
            image_files([source])
    assert [image.name for image in image_files([str(tmp_path / "a.png")])] == [
        str(tmp_path / "a.png")
    ]


def test_everything_in_a_folder_with_the_name_of_an_image_is_read_or_told(tmp_path: Path):
    """A FIFO, or a link that leads nowhere, is skipped with a message when it is read."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.PNG").touch()
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "c.jpg")
    images = image_folder(tmp_path)
    assert [image.name for image in images] == ["a.jpg", "c.jpg", "sub/b.PNG"]
    for image in images[:2]:
        with pytest.raises(UserError):
            image.read()


def test_images_in_a_linked_folder_are_read(tmp_path: Path):
    for name in ("in/own", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").touch()
    (tmp_path / "in/link").symlink_to("../other")
    names = [image.name for image in image_folder(tmp_path / "in")]
    assert names == ["link/a.png", "own/a.png"]


@pytest.mark.parametrize(
    ("source", "video"),
    [
        ("0", True),
        ("12", True),
        ("rtsp://host/live", True),
        ("http://host/live?size=big", True),
        ("http://host/a.JPG", False),
        ("nowhere.MP4", True),
        ("nowhere.jpg", False),
        ("nowhere", False),
        ("folder.mp4", False),
        ("7", False),
        ("clip", True),
        ("image", False),
        ("clip.gif", False),
    ],
)
def test_what_a_source_is(source: str, video: bool, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.mp4").mkdir()
    for suffix in ("mp4", "avi"):
        with VideoSink(f"x.{suffix}", 25, (64, 48)) as sink:
            sink.write(np.zeros((48, 64, 3), np.uint8))
    Path("x.mp4").rename("clip")
    for name in ("7", "image", "clip.gif"):
        Path(name).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert is_video(source) == video
    assert find_mode([source]) == ("video" if video else "image")
    assert is_video("x.avi") and is_video(str(Path("x.avi").rename("y")))


def test_images_and_folders_in_one_command_but_no_videos_among_them(tmp_path: Path):
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("a.png", "in/sub/b.png"):
        (tmp_path / name).touch()
    images = image_sources([str(tmp_path / "a.png"), str(tmp_path / "in")])
    assert [image.name for image in images] == [str(tmp_path / "a.png"), "sub/b.png"]
    assert [image.from_folder for image in images] == [False, True]
    with pytest.raises(UserError, match=r"a\.mp4: is a video, but b\.png is not"):
        find_mode(["a.mp4", "b.png"])
    assert find_mode([]) == "image"


def test_a_damaged_image_is_used_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "half.jpg"
    write_image(path, np.full((80, 60, 3), 200, np.uint8))
    path.write_bytes(path.read_bytes()[:-2])
    (image,) = image_files([path])
    assert image.read().shape == (80, 60, 3)
    assert capsys.readouterr().err == f"note: {path}: image truncated: the intact part is used\n"
