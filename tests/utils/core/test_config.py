"""Configuration: inheritance, overrides, types, and errors that are one line and name the key."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from utils.core.config import (
    CONFIG_DIR,
    RESUME_KEYS,
    check_resume_changes,
    dump_config,
    explain_fields,
    find_config,
    load_config,
    make_config,
    parse_overrides,
    update_config,
)
from utils.core.errors import UserError
from utils.core.schema import Config

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return file


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1, "a user's mistake is told in one line"
    return message


# files and inheritance


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


# keys and types


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


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=2.5", "train.epochs"),
        ("train.epochs=true", "train.epochs"),
        ("train.epochs={a: 1}", "train.epochs"),
        ("input_size=true", "input_size"),
        ("train=5", "train"),
        ("augment.mosaic=1.5", "augment.mosaic"),
        ("augment.scale=[2, 1]", "augment.scale"),
        ("augment.scale=[0, 1]", "augment.scale"),
        ("augment.scale=[1]", "augment.scale"),
        ("augment.hsv_h=.nan", "augment.hsv_h"),
        ("train.lr=.inf", "train.lr"),
        ("loss.assign=bst", "loss.assign"),
        ("device=gpu", "device"),
        ("precision=half", "precision"),
        ("phi=[1, 2]", "phi"),
        ("model.anchors=[[1, 2]]", "model.anchors"),
        ("model.anchor_masks=[[3, 4, 6], [0, 1, 2]]", "model.anchor_masks"),
        ("attention.at=feat1", "attention.at"),
        ("data.classes={a: 1}", "data.classes"),
    ],
)
def test_wrong_values_name_the_key(override: str, key: str) -> None:
    assert key in refused(lambda: load_config("shapes", [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=../../x", "name: expected the name of one folder, got '../../x'"),
        ("name=a/b", "name: expected the name of one folder, got 'a/b'"),
        ("name='a\\b'", "name: expected the name of one folder"),
        ("name=..", "name: expected the name of one folder, got '..'"),
        ("name=", "name: expected text, got nothing"),
        ("name=''", "name: expected some text, got ''"),
        ('name="a\\0b"', "name: expected text without control characters, got 'a\\x00b'"),
        ('name="a\\nb"', "name: expected text without control characters, got 'a\\nb'"),
        ("name=" + "x" * 300, "name: expected at most 240 bytes, got 300"),
        ("name=" + "é" * 130, "name: expected at most 240 bytes, got 260"),
        ("name=12", "name: expected text (in quotes if it looks like a number), got 12"),
        ('data.root="a\\0"', "data.root: expected text without control characters"),
        ('data.classes=["a\\n"]', "data.classes: expected text without control characters"),
        ("output=''", "output: expected some text, got ''"),
        ("weights=''", "weights: expected some text, got ''"),
        ("train=", "train: is a section; expected KEY=VALUE for keys in it"),
        ("augment=null", "augment: is a section; expected KEY=VALUE for keys in it"),
        ("train=5", "train: expected a section with keys, got 5"),
        ("train.epochs.x=5", "train.epochs.x: train.epochs is not a section, it is set to"),
        ("seed.x=5", "seed: expected an integer, got {'x': 5}"),
        ("seed=-1", "seed: expected 0 to below 4,294,967,296, got -1"),
        (f"seed={2**64}", "seed: expected 0 to below 4,294,967,296"),
        ("seed=1:30", "seed: expected an integer, got '1:30'"),
        ("input_size=1000000", "up to 4096, got 1000000"),
        ("input_size=[416, true]", "input_size: expected no true or false here, got true"),
        ("threads=100000", "threads: expected 0 to 1,024, got 100000"),
        ("train.workers=100000", "train.workers: expected 0 to 256, got 100000"),
        ("train.batch_size=100000", "train.batch_size: expected 'auto' or 1 to 65,536, got 100000"),
        ("data.cache_gb=1e30", "data.cache_gb: expected above 0, up to 1,000,000, got 1e+30"),
        ("data.shapes_train=1e12", "data.shapes_train: expected 1 to 100,000"),
        ("eval.max_detections=1e9", "eval.max_detections: expected 1 to 100,000"),
        ("augment.degrees=181", "augment.degrees: expected 0 to 180, got 181"),
        ("augment.shear=89", "augment.shear: expected 0 to 40, got 89"),
        ("augment.scale=[1e-9, 1]", "augment.scale[0]: expected 0.05 to 20, got 1e-09"),
        ("augment.scale=[1, true]", "augment.scale: expected no true or false here, got true"),
        ("augment.translate=1.1", "augment.translate: expected 0 to 1, got 1.1"),
        ("loss={box: 0, objectness: 0, cls: 0}", "loss: box, objectness and cls are all 0"),
        ("train.lr=1e30", "train.lr: expected above 0, up to 10, got 1e+30"),
        ("train.lr=.nan", "train.lr: expected a finite number, got nan"),
        ("train.momentum=1", "train.momentum: expected 0 to below 1, got 1"),
        ("train.compile=maybe", "train.compile: expected true or false, got 'maybe'"),
        ("model.anchors=[[1, 2]]", "model.anchors: expected 'auto' or 6 [width, height] for"),
        (f"model.anchors={[[9, 9]] * 5 + [[9, 1e9]]}", "model.anchors[5][1]: expected 0.1 to"),
        (f"model.anchors={[[9, 9]] * 5 + [['x', 9]]}", "model.anchors[5][0]: expected a number"),
        ("model.anchor_masks=[[0, 0, 1], [3, 4, 5]]", "expected different anchors in each head"),
        ("model.anchor_masks=[[0, 1, 2]]", "expected 2 lists of indices for model.heads=2, got"),
        (f"model.anchor_masks={[[0, 1, 2]] * 1000}", "expected 2 lists of indices for model.heads"),
        ("model.heads=4", "model.heads: expected 2 or 3, got 4"),
        (
            f"model={{heads: 3, anchors: {[[9, 9]] * 6}}}",
            "model.anchors: expected 'auto' or 9 [width, height] for model.heads=3, got 6",
        ),
        (
            "model={heads: 3, anchor_masks: [[0, 1, 2], [3, 4, 5], [6, 7, 9]]}",
            "model.anchor_masks: expected anchor indices 0 to 8, got",
        ),
        ("phi=[1]", "phi: expected an integer or text or a mapping, got [1]"),
        ("phi={1: se}", "or names as keys, got {1: 'se'}"),
        ("phi=true", "phi: expected no true or false here, got true"),
        ("device=cuda:999", "device: expected auto, cpu, cuda, cuda:1 or mps, got 'cuda:999'"),
        (
            "attention.at=[feat1, feat1]",
            "attention.at: expected different sites, got 'feat1' twice",
        ),
        ("data.root=" + "x" * 10**6, "data.root: expected at most 4096 characters, got 'xxx"),
        ("seed=" + "x" * 10**6, "seed: expected an integer, got 'xxx"),
    ],
)
def test_wrong_values_are_told_in_plain_words(override: str, message: str) -> None:
    told = refused(lambda: load_config("shapes", [override]))
    assert message in told and len(told) < 400
    for internal in ("literal[", "function-", "Input should", "Value error", "tuple[", "pydantic"):
        assert internal not in told


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


@pytest.mark.parametrize(
    ("value", "size"),
    [(320, (320, 320)), ("[224, 416]", (224, 416)), (32, (32, 32)), ("[96, 32]", (96, 32))],
)
def test_input_sizes(value: object, size: tuple[int, int]) -> None:
    assert load_config("shapes", [f"input_size={value}"]).input_size == size


@pytest.mark.parametrize(
    "value", ["100", "0", "-32", "[416]", "[416, 100]", "416.0", "'416'", "[a, b]", "null"]
)
def test_input_sizes_off_the_grid_are_refused(value: str) -> None:
    message = refused(lambda: load_config("shapes", [f"input_size={value}"]))
    assert "input_size" in message and "multiples of 32" in message


@pytest.mark.parametrize(
    ("text", "phi"),
    [
        ("2", 2),
        ("none", "none"),
        ("null", None),
        ("cbam", "cbam"),
        ("{name: cbam, reduction: 8}", {"name": "cbam", "reduction": 8}),
        (
            "{feat1: eca, feat2: {name: se, reduction: 4}}",
            {"feat1": "eca", "feat2": {"name": "se", "reduction": 4}},
        ),
        ("package.module:Class", "package.module:Class"),
    ],
)
def test_spellings_of_phi(text: str, phi: object, write: Write) -> None:
    assert load_config(write("child.yaml", f"phi: {text}\n")).phi == phi
    assert load_config("shapes", [f"phi={text}"]).phi == phi


# overrides


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


# writing and explaining


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


@pytest.mark.parametrize("masks", [[[3, 4, 5], [0, 1, 2]], [[3, 4, 5], [1, 2, 3]]])
def test_masks_saved_before_they_followed_the_heads_mean_the_same(masks: list) -> None:
    """Old configurations have the default masks of two heads in full."""
    old = make_config({"model": {"anchor_masks": masks}})
    assert [list(mask) for mask in old.model.masks] == masks
    assert (old == make_config({})) == (masks[1] == [0, 1, 2])


def test_default_masks_follow_the_heads() -> None:
    three = update_config(make_config({}), {"model.heads": 3}).model
    assert three.masks == ((6, 7, 8), (3, 4, 5), (0, 1, 2)) and three.num_anchors == 9
