"""Images of a dataset, for commands that are given none."""

import os
from pathlib import Path

import pytest

from nets.loading import load_model
from utils.core.errors import UserError
from utils.engine.experiment import Result
from utils.engine.sources import image_files, image_folder, validation_images


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
