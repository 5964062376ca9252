"""Run folders: made, found, read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.runs import BEST, LAST, create_run, find_run, find_weights


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
        ("yolov4-tiny", "no such file or run; did you mean 'yolov4-tiny.weights'"),
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


def test_a_folder_that_is_no_run_does_not_hide_the_run_of_that_name(tiny: Callable[..., Config]):
    tiny()
    Path("shapes").mkdir()
    best, last = put(f"runs/shapes/{BEST}"), put(f"runs/shapes/{LAST}")
    assert find_weights("shapes") == best
    assert find_run("shapes") == last.parent


def test_runs_are_looked_up_in_the_output_folder(tiny: Callable[..., Config]):
    tiny()
    put(f"runs/a/{BEST}")
    put(f"runs/a/{LAST}")
    old, new = put(f"out/a/{BEST}", age=100), put(f"out/b/{BEST}")
    last = put(f"out/a/{LAST}", age=100)
    assert find_weights(None, "out") == new
    assert find_weights("a", "out") == old
    assert find_run("a", "out") == last.parent
    assert find_weights("runs/a", "out") == Path("runs/a") / BEST  # a path is a path
    with pytest.raises(UserError, match="no trained weights in empty/"):
        find_weights(None, "empty")


def test_a_run_that_ended_before_its_first_save_is_started_again(tiny: Callable[..., Config]):
    run = create_run(tiny("name=a"))
    with pytest.raises(UserError, match=r"start again with: python train.py --config .*yaml"):
        find_run(run)
    with pytest.raises(UserError, match=r"has no last.pt"):
        find_run("a")


@pytest.mark.parametrize("name", ["x" * 5000, "a" * 300 + "/b", "\udcff"])
def test_names_that_no_file_can_have(name: str, tiny: Callable[..., Config]):
    tiny()
    for find in (find_run, find_weights):
        with pytest.raises(UserError, match="no ") as caught:
            find(name)
        assert len(str(caught.value)) < 300
