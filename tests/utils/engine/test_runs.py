"""Run folders: made, found, read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nets.loading import load_model
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.experiment import Result
from utils.engine.runs import (
    BEST,
    LAST,
    create_run,
    describe,
    find_run,
    find_weights,
    validation_pictures,
)


def put(path: str, age: float = 0.0) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (1e9 - age, 1e9 - age))
    return file


def test_folders_count_up_and_hold_the_configuration(tiny: Callable[..., Config]):
    config = tiny("name=a", "output=out", "train.epochs=7")
    assert [create_run(config) for _ in range(3)] == [
        Path("out/a"),
        Path("out/a-2"),
        Path("out/a-3"),
    ]
    assert load_config("out/a-3/config.yaml") == config


def test_an_output_that_cannot_be_made(tiny: Callable[..., Config]):
    put("file")
    with pytest.raises(UserError, match="output=file/below"):
        create_run(tiny("output=file/below"))


def test_weights_are_found_by_file_folder_name_and_age(tiny: Callable[..., Config]):
    tiny()
    old, new = put(f"runs/old/{BEST}", age=100), put(f"runs/new/{BEST}")
    last = put(f"runs/begun/{LAST}", age=-100)
    assert find_weights(None) == new
    assert find_weights("runs/old") == find_weights("old") == find_weights(old) == old
    assert find_weights("begun") == last


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("runs/od", "did you mean 'runs/old'"),
        ("runs/empty", "no best.pt in that folder"),
        ("no/such.pt", "no such file or run"),
    ],
)
def test_weights_that_are_not_there(weights: str, words: str, tiny: Callable[..., Config]):
    tiny()
    with pytest.raises(UserError, match="train first"):
        find_weights(None)
    put(f"runs/old/{BEST}")
    Path("runs/empty").mkdir()
    with pytest.raises(UserError, match=words):
        find_weights(weights)


def test_a_run_to_resume_is_found_by_folder_name_and_checkpoint(tiny: Callable[..., Config]):
    tiny()
    last = put(f"runs/a/{LAST}")
    assert find_run("runs/a") == find_run("a") == find_run(last) == Path("runs/a")
    with pytest.raises(UserError, match="did you mean 'a'"):
        find_run("aa")


def test_validation_pictures_are_those_of_the_data(trained: Result):
    config = load_model(trained.run).config
    pictures = validation_pictures(config, 5)
    assert [name for name, _ in pictures] == [
        found.image for found in trained.evaluation.detections[:5]
    ]
    assert all(read().shape == (64, 64, 3) for _, read in pictures)


def test_a_detector_in_one_line(trained: Result):
    line = describe(load_model(trained.run, input_size=(64, 96)))
    assert line == "6 classes, phi none, 96x64, cpu, fp32"
