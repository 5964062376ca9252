"""Configuration files: inheritance, what is refused, and what is written and explained."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.utils.core.config_files import Write, refused
from utils.core.config import (
    CONFIG_DIR,
    dump_config,
    find_config,
    load_config,
    make_config,
    update_config,
)
from utils.core.config_fields import explain_fields
from utils.core.errors import UserError
from utils.core.overrides import parse_overrides
from utils.core.schema import Config


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_loads(path: Path) -> None:
    config = load_config(path.name)
    assert config.name == path.stem
    assert load_config(path.stem) == config == load_config(path)


def test_a_child_changes_only_what_it_names(write: Write) -> None:
    write(
        "parent.yaml", "phi: se\nseed: 3\ntrain: {epochs: 7, batch_size: 4}\ndata: {root: here}\n"
    )
    child = load_config(write("child.yaml", "base: parent.yaml\nphi: cbam\ntrain:\n  epochs: 9\n"))
    assert (child.name, child.phi, child.seed, child.data.root) == ("child", "cbam", 3, "here")
    assert (child.train.epochs, child.train.batch_size) == (9, 4)


def test_a_file_beside_the_child_wins_over_one_in_configs(write: Write) -> None:
    write("voc.yaml", "seed: 41\n")
    write("below/middle.yaml", "base: ../voc.yaml\n")
    assert load_config(write("child.yaml", "base: voc.yaml\n")).seed == 41
    assert load_config(write("grandchild.yaml", "base: below/middle.yaml\n")).seed == 41
    assert load_config(write("other/child.yaml", "base: voc.yaml\n")).data.format == "voc"


def test_lists_and_phi_are_replaced_not_merged(write: Write) -> None:
    write(
        "parent.yaml",
        "phi: {feat1: eca}\nattention: {at: [feat1, feat2], init: identity}\n"
        "augment: {scale: [1, 2]}\n",
    )
    child = load_config(
        write(
            "child.yaml",
            "base: parent.yaml\nphi: {feat2: se}\nattention: {at: [upsample]}\n"
            "augment: {scale: [1, 1]}",
        )
    )
    assert child.phi == {"feat2": "se"}
    assert child.attention.at == ["upsample"] and child.attention.init == "identity"
    assert child.augment.scale == (1.0, 1.0)
    assert load_config(write("none.yaml", "base: parent.yaml\nphi: null\n")).phi is None


def test_an_empty_file_and_an_empty_section_change_nothing(write: Write) -> None:
    assert load_config(write("empty.yaml", "# nothing\n")) == Config(name="empty")
    write("parent.yaml", "train: {epochs: 7}\n")
    child = load_config(write("child.yaml", "base: parent.yaml\ntrain:\n  # epochs: 9\ndata:\n"))
    assert child.train.epochs == 7 and child.data == Config().data


def test_cycles_are_refused(write: Write) -> None:
    own = write("own.yaml", "base: own.yaml\n")
    assert "own.yaml: base: inherits from itself" in refused(lambda: load_config(own))
    write("a.yaml", "base: b.yaml\n")
    b = write("b.yaml", "base: a.yaml\n")
    assert "inherits from itself" in refused(lambda: load_config(b))


def test_missing_files_name_the_nearest(write: Write) -> None:
    message = refused(lambda: load_config("voc_cbm.yaml"))
    assert "--config voc_cbm.yaml" in message and "did you mean 'voc_cbam.yaml'?" in message
    child = write("child.yaml", "base: vocc.yaml\n")
    message = refused(lambda: load_config(child))
    assert "child.yaml: base: vocc.yaml" in message and "did you mean 'voc.yaml'?" in message
    with pytest.raises(UserError, match="no such file"):
        find_config("")


@pytest.mark.parametrize("base", ["[a, b]", "''", "5", "{a: 1}"])
def test_a_base_is_one_file(base: str, write: Write) -> None:
    path = write("child.yaml", f"base: {base}\n")
    message = refused(lambda: load_config(path))
    assert "child.yaml: base: expected a configuration file, got" in message


def test_a_configuration_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    for path, kind in ((tmp_path / "fifo.yaml", "a FIFO"), (tmp_path, "a folder")):
        assert refused(lambda path=path: load_config(path)).endswith(f"is {kind}, expected a file")


@pytest.mark.parametrize(
    "text", ["train: [1, 2\n", "a: b: c\n", "- 1\n- 2\n", "just words\n", "3\n", "\tx: 1\n"]
)
def test_files_that_are_no_mapping_are_named(text: str, write: Write) -> None:
    path = write("bad.yaml", text)
    assert "bad.yaml" in refused(lambda: load_config(path))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00seed: 1")
    assert "bad.yaml" in refused(lambda: load_config(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("sede: 3\n", "'sede'", "did you mean 'seed'?"),
        ("train: {epoch: 3}\n", "'train.epoch'", "did you mean 'train.epochs'?"),
        ("trian: {epochs: 3}\n", "'trian'", "did you mean 'train'?"),
        ("epochs: 3\n", "'epochs'", "did you mean 'train.epochs'?"),
        ("epoch: 3\n", "'epoch'", "did you mean 'train.epochs'?"),
        ("score: 0.3\n", "'score'", "did you mean 'eval.score' or 'predict.score'?"),
        ("eval: {lr: 3}\n", "'eval.lr'", "did you mean 'train.lr'?"),
        ("train.epochs: 3\n", "'train.epochs'", "expected it nested: train: {epochs: ...}"),
        ("1: 3\n", "'1'", "expected one of: name, phi"),
        ("predict: {zzzzzz: 3}\n", "'predict.zzzzzz'", "expected one of: score, nms_iou"),
    ],
)
def test_unknown_keys_name_file_key_and_nearest(
    text: str, key: str, suggestion: str, write: Write
) -> None:
    path = write("typo.yaml", text)
    message = refused(lambda: load_config(path))
    assert "typo.yaml" in message and f"unknown key {key}" in message and suggestion in message


@pytest.mark.parametrize(
    ("parent", "child", "overrides", "holder"),
    [
        ("trian: {epochs: 3}", "seed: 1", [], "parent.yaml"),
        ("train: {epoch: 3}", "train: {epochs: 2}", [], "parent.yaml"),
        ("train: {epoch: 3}", "seed: 1", ["train.epochs=2"], "parent.yaml"),
        ("augment: {scale: [2, 1]}", "augment: {mosaic: 1}", ["seed=1"], "parent.yaml"),
        ("train: {epochs: none}", "train: {epochs: many}", [], "child.yaml"),
        ("train: {epochs: 3}", "train: {epoch: 3}", ["seed=1"], "child.yaml"),
        ("train: {epochs: 3}", "train: 5", [], "child.yaml"),
        (
            "seed: 1",
            "train: {epochs: 3}",
            ["seed=2", "train.epochs=many"],
            "child.yaml with train.epochs=many",
        ),
    ],
)
def test_the_file_that_holds_a_mistake_is_named(
    parent: str, child: str, overrides: list[str], holder: str, write: Write, tmp_path: Path
) -> None:
    write("parent.yaml", parent)
    write("middle.yaml", "base: parent.yaml\nname: middle\n")
    path = write("child.yaml", f"base: middle.yaml\n{child}\n")
    assert refused(lambda: load_config(path, overrides)).startswith(f"{tmp_path / holder}: ")


def test_a_written_configuration_reads_back_equal(write: Write) -> None:
    overrides = [
        "phi={feat1: eca, feat2: {name: se, reduction: 4}}",
        "input_size=[224, 416]",
        "model.anchors=[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12.5]]",
        "data.classes=['no', 'Hündin', '12']",
        "train.lr=1.0e-07",
        "train.weight_decay=0.1234567890123",
        "data.root='C:\\data: #1'",
    ]
    config = load_config("voc_cbam", overrides)
    assert load_config(write("config.yaml", dump_config(config))) == config
    assert set(yaml.safe_load(dump_config(config))) == set(Config.model_fields), (
        "a run's file holds every field"
    )


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_field_is_explained_with_its_default() -> None:
    rows = list(explain_fields())
    assert [key for key, _, _ in rows] == list(leaves(Config().model_dump()))
    for key, default, meaning in rows:
        assert meaning and len(meaning.splitlines()) == 1, key
        assert make_config({}) == update_config(
            make_config({}), parse_overrides([f"{key}={default}"])
        ), key


def test_the_folder_of_a_block_of_ones_own_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "plain.yaml").write_text("base: shapes.yaml\nphi: {feat1: {name: cbam}}\n")
    load_config(tmp_path / "plain.yaml")
    assert str(tmp_path) not in sys.path
    (tmp_path / "own.yaml").write_text("base: shapes.yaml\nphi: {feat1: {name: 'blocks:Own'}}\n")
    load_config(tmp_path / "own.yaml")
    assert sys.path[-1] == str(tmp_path)
