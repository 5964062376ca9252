"""Values: the accepted spellings, and errors that are one line in plain words and name the key."""

import pytest

from tests.utils.core.config_files import Write, refused
from utils.core.config import load_config, make_config, update_config


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


@pytest.mark.parametrize("masks", [[[3, 4, 5], [0, 1, 2]], [[3, 4, 5], [1, 2, 3]]])
def test_masks_saved_before_they_followed_the_heads_mean_the_same(masks: list) -> None:
    """Old configurations have the default masks of two heads in full."""
    old = make_config({"model": {"anchor_masks": masks}})
    assert [list(mask) for mask in old.model.masks] == masks
    assert (old == make_config({})) == (masks[1] == [0, 1, 2])


def test_default_masks_follow_the_heads() -> None:
    three = update_config(make_config({}), {"model.heads": 3}).model
    assert three.masks == ((6, 7, 8), (3, 4, 5), (0, 1, 2)) and three.num_anchors == 9
