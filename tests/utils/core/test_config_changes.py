"""Keys from the command line: how they are read, and what they change."""

import pytest

from tests.utils.core.config_files import Write, refused
from utils.core.config import load_config, update_config
from utils.core.config_fields import explain_fields
from utils.core.overrides import RESUME_KEYS, check_resume_changes
from utils.core.schema import Config


def test_keys_on_the_command_line_join_what_the_file_sets(write: Write) -> None:
    path = write("mine.yaml", "train: {epochs: 7, batch_size: 4}\n")
    for words in (
        ["train={epochs: 9}"],
        ["train.epochs=9"],
        ["train={epochs: 1}", "train.epochs=9"],
    ):
        config = load_config(path, words)
        assert (config.train.epochs, config.train.batch_size) == (9, 4)


def test_only_some_keys_may_change_in_a_resumed_run() -> None:
    known = {key for key, _, _ in explain_fields()}
    assert set(RESUME_KEYS) < known
    check_resume_changes(dict.fromkeys([*RESUME_KEYS, "predict.score"]))
    check_resume_changes({"train": {"epochs": 3}, "predict": {"score": 0.3}})
    for key in ("train.batch_size", "seed", "phi", "data.train", "augment.mosaic"):
        assert f"--resume with {key}=" in refused(lambda key=key: check_resume_changes({key: 1}))
    message = refused(lambda: check_resume_changes({"train.epoch": 1}))
    assert "did you mean 'train.epochs'?" in message


def test_overrides_are_yaml_and_the_last_one_wins(write: Write) -> None:
    path = write("mine.yaml", "train: {epochs: 7, batch_size: 4}\n")
    overrides = [
        "train.epochs=8",
        "train.lr=1e-3",
        "data.root=/a=b",
        "data.classes=[cat, dog]",
        "train.epochs=9",
    ]
    config = load_config(path, overrides)
    assert (config.train.epochs, config.train.batch_size, config.train.lr) == (9, 4, 0.001)
    assert config.data.root == "/a=b" and config.data.classes == ["cat", "dog"]
    assert config.name == "mine"


@pytest.mark.parametrize(
    "override",
    ["train.epochs", "=3", " =3", "train.epochs=[1", "train.=1", ".epochs=1", "train..epochs=1"],
)
def test_malformed_overrides_are_quoted(override: str) -> None:
    assert f"'{override}'" in refused(lambda: load_config("shapes", [override]))


def test_an_unknown_override_names_the_nearest() -> None:
    message = refused(lambda: load_config("shapes", ["train.epochs=3", "train.bach_size=3"]))
    assert "train.bach_size" in message and "did you mean 'train.batch_size'?" in message


def test_update_config_leaves_the_original() -> None:
    config = load_config("shapes")
    changed = update_config(config, {"eval.nms_iou": 0.3, "phi": "eca"})
    assert (changed.eval.nms_iou, changed.phi) == (0.3, "eca")
    assert (config.eval, config.phi) == (Config().eval, "none")
    assert update_config(config, {}) is config
    assert "eval.nsm_iou" in refused(lambda: update_config(config, {"eval.nsm_iou": 0.3}))
