"""Configurations with slips, from files and from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

# words of the command line after `train.py --config shapes.yaml` -> part of the message
WORDS: dict[str, str] = {
    "train=": "train: is a section; expected KEY=VALUE",
    "data=": "data: is a section",
    "train=5": "train: expected a section with keys, got 5",
    "train=[]": "train: expected a section with keys",
    "attention=se": "attention: expected a section with keys, got 'se'",
    "train.epochs=": "train.epochs: expected 'auto' or an integer, got nothing",
    "train.epochs=1.5": "train.epochs: expected 'auto' or an integer, got 1.5",
    "train.epochs=true": "train.epochs: expected no true or false here",
    "train.epochs=[3]": "train.epochs: expected 'auto' or an integer",
    "train.epochs={a: 1}": "train.epochs",
    "train.epochs=-1": "train.epochs: expected 'auto' or 1 to 1,000,000, got -1",
    "train.epochs=99999999999999999999": "train.epochs: expected",
    f"train.epochs={'9' * 5000}": "a number of more than 100 digits",
    "train.epochs=0x": "train.epochs: expected 'auto' or an integer, got '0x'",
    "train.epoch=3": "did you mean 'train.epochs'",
    "epochs=3": "did you mean 'train.epochs'",
    "Train.epochs=3": "did you mean 'train'",
    "train.Epochs=3": "did you mean 'train.epochs'",
    "batch=3": "unknown key 'batch'",
    "train.lr=.inf": "train.lr: expected a finite number",
    "train.lr=.nan": "train.lr: expected",
    "train.lr=nan": "train.lr: expected a finite number, got 'nan'",
    "train.lr=1e400": "train.lr: expected a finite number",
    "train.lr=0": "train.lr: expected above 0",
    "train.lr=1,5": "train.lr: expected a number, got '1,5'",
    "train.momentum=1": "train.momentum: expected 0 to below 1, got 1",
    "train.optimizer=SGD": "train.optimizer: expected 'muon', 'sgd' or 'adamw', got 'SGD'",
    "train.workers=-1": "train.workers: expected 0 to 256",
    "train.batch_size=0": "train.batch_size: expected 'auto' or 1 to",
    "augment.mosaic=2": "augment.mosaic: expected 0 to 1, got 2",
    "augment.scale=[2, 1]": "augment.scale: expected [smallest, largest]",
    "augment.scale=1": "augment.scale: expected a list",
    "augment.scale=[1]": "augment.scale",
    "augment.scale=[1, 2, 3]": "augment.scale",
    "augment.flip_h=0.5": "'augment.flip_h' is now called 'augment.fliplr'",
    "loss.assign=nearest": "loss.assign: expected",
    "loss={box: 0, objectness: 0, cls: 0}": "expected a weight above 0",
    "input_size=33": "input_size: expected an integer or [height, width], multiples of 32",
    "input_size=0": "input_size: expected",
    "input_size=64.0": "input_size: expected",
    "input_size=[64]": "input_size: expected",
    "input_size=[64, 64, 3]": "input_size: expected",
    "input_size='64'": "input_size: expected",
    "input_size=1000000": "input_size: expected",
    "input_size=true": "input_size: expected",
    "seed=-1": "seed: expected 0 to below 4,294,967,296, got -1",
    "seed=4294967296": "seed: expected 0 to below",
    "seed=random": "seed: expected an integer",
    "device=CPU": "device: expected auto, cpu",
    "device=0": "device: expected text",
    "precision=double": "precision: expected",
    "phi=''": "phi",
    "phi=5": "phi",
    "phi=-1": "phi",
    "phi=true": "phi: expected no true or false here",
    "phi=[se]": "phi",
    "phi={name: se, reductoin: 4}": "reduction",
    "phi={name: se, reduction: 0}": "reduction",
    "phi={name: se, reduction: .inf}": "reduction",
    "phi={feat3: se}": "feat3",
    "phi={feat1: {name: nothing}}": "nothing",
    "phi=sys:exit": "sys:exit",
    "phi=os:system": "os:system",
    "phi=no.such.module:Block": "no.such.module",
    "phi=blocks:Missing": "blocks",
    "phi=blocks:Raises": "blocks:Raises",
    "phi=blocks:Exits": "blocks:Exits",
    "phi=blocks:OtherShape": "blocks:OtherShape",
    "phi=blocks:NotAModule": "blocks:NotAModule",
    "phi=broken:Block": "broken",
    "attention.at=feat1": "attention.at: expected a list",
    "attention.at=[feat1, feat1]": "expected different sites, got 'feat1' twice",
    "attention.at=[feat9]": "did you mean 'feat",
    "attention.init=zero": "attention.init: expected 'paper' or 'identity'",
    "name=../../x": "name: expected the name of one folder, got '../../x'",
    "name=/tmp": "name: expected the name of one folder",
    "name=..": "name: expected the name of one folder",
    "name=": "name: expected text",
    "name=5": "name: expected text (in quotes if it looks like a number)",
    f"name={'x' * 300}": "name: expected at most 240 bytes",
    "output=": "output: expected text",
    "output=file": "output=file: ",
    "output=file/below": "output=file/below: ",
    "output=/proc/x": "output=/proc/x: ",
    "weights=no.pt": "no.pt: no such file",
    "weights=ftp://host//best.pt": "ftp://host//best.pt: expected a file, or an address with http",
    "weights=/dev/zero": "/dev/zero: is a device, expected a file",
    "weights=.": ".: is a folder, expected a file",
    "weights=file": "file: expected .pt (ours), .pth (reference) or .weights (Darknet)",
    "weights=5": "weights: expected text",
    "model.anchors=[]": "model.anchors: expected",
    "model.anchors=[[1,1],[1,1],[1,1],[1,1],[1,1],[0,1]]": "model.anchors[5][0]: expected",
    "model.anchor_masks=[[0,1,2],[3,4,6]]": "expected anchor indices 0 to 5",
    "model.scale_x_y=0": "model.scale_x_y: expected above 0",
    "data.format=pascal": "data.format: expected 'auto', 'shapes', 'voc', 'coco' or 'yolo', got",
    "data.classes=[a, a]": "data.classes: class 'a' is listed twice",
    "data.classes=[a, b]": "data.classes: class 'circle' is not in the class list",
    "data.classes=[]": "data.classes: the class list is empty",
    "data.classes=5": "data.classes: expected",
    "data.classes=[1, 2]": "data.classes",
    "data.classes=no.txt": "data.classes: no file no.txt",
    "data.classes=file": "data.classes: class 'circle' is not in the class list",
    "data.root=5": "data.root: expected text",
    "data.train=": "data.train: expected text",
    "data.cache_gb=0": "data.cache_gb: expected above 0",
    "data.cache=memory": "data.cache: expected 'ram', 'disk' or 'none', got 'memory'",
    "data.shapes_train=1e9": "data.shapes_train: expected",
    "eval.score=1.5": "eval.score: expected 0 to 1, got 1.5",
    "predict.max_detections=0": "predict.max_detections: expected 1 to",
    "threads=100000": "threads: expected 0 to 1,024",
    "base=voc.yaml": "unknown key 'base'",
    "seed.x=3": "seed.x",
}
SHORT = ("input_size=64", "train.epochs=1", "data.shapes_train=4", "data.shapes_val=1")
BLOCKS = """
import sys
from torch import nn

class Raises(nn.Module):
    def __init__(self, channels):
        raise RuntimeError("two\\nlines")

class Exits(nn.Module):
    def __init__(self, channels):
        sys.exit(0)

class OtherShape(nn.Module):
    def __init__(self, channels):
        super().__init__()
    def forward(self, x):
        return x[:, :1]

def NotAModule(channels):
    return 3
"""


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_a_word_that_no_training_can_use_is_one_line(
    word: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    Path("blocks.py").write_text(BLOCKS)
    Path("broken.py").write_text("def (")
    Path("file").write_text("some text\n")
    monkeypatch.syspath_prepend(Path.cwd())
    assert WORDS[word] in refused("train", "--config", "shapes.yaml", *SHORT, word)
    assert not Path("runs").exists()


# content of x.yaml -> part of the message
FILES: dict[str, str] = {
    "train:\n  epochs: 3\n  epochs: 4\n": "x.yaml:3: not valid YAML: the key epochs is set twice",
    "train: [epochs]": "x.yaml: train: expected a section with keys",
    "train.epochs: 3": "unknown key 'train.epochs'; expected it nested: train: {epochs: ...}",
    "- a\n- b": "x.yaml: expected a mapping of keys to values, got list",
    "just text": "expected a mapping of keys to values, got str",
    "a: b: c": "x.yaml: not valid YAML",
    "train:\n\tepochs: 3": "x.yaml:2: not valid YAML: expected spaces, found a tab",
    "train: {epochs: 3": "not valid YAML",
    "phi: !!python/object/apply:os.system ['true']": "is not supported",
    "seed: !!int 3": "is not supported",
    "phi: *se": "not valid YAML",
    "data: &d {root: *d}": "contains itself",
    "? [a, b]\n: c": "expected a name or an integer as key",
    "1: 2": "unknown key '1'",
    "true: 2": "expected a name or an integer as key",
    "seed: 0\n---\nseed: 1": "not valid YAML",
    "base: x.yaml": "base: inherits from itself",
    "base: y.yaml": "inherits from itself",
    "base: [voc.yaml]": "base: expected a configuration file",
    "base: 5": "base: expected a configuration file, got 5",
    "base: ''": "base: expected a configuration file",
    "base: no.yaml": "x.yaml: base: no.yaml: no such file",
    "base: .": "x.yaml: base: .: is a folder",
    "seed: 1e400": "seed: expected",
    "seed: 0o8": "seed: expected an integer, got '0o8'",
    "seed: " + "[" * 50 + "]" * 50: "more than 40 levels",
    "seed: " + "[" * 50_000: "more than 40 levels",
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefg", "bcdefgh", strict=True)
    ): "more than 100,000 values",
    'name: "a\\ud800"': "x.yaml: not valid YAML: an escape sequence stands for no character",
    'name: "a\\nb"': "name: expected text without control characters",
    "name: a\0b": "the character U+0000 is not allowed",
    "#" * (2**20 + 1): "expected at most 1,048,576",
    "data: {root: data, root: other}": "the key root is set twice",
    "<<: {seed: 1}\n<<: {seed: 2}": "the key << is set twice",
    "predict: {merge_iou: 0.5}": "'predict.merge_iou' is now called 'predict.vote_iou'",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_file_that_is_no_configuration_is_one_line(
    command: str, text: str, refused: Callable[..., str]
):
    Path("x.yaml").write_text(text)
    Path("y.yaml").write_text("base: x.yaml")
    assert FILES[text] in refused(command, "--config", "x.yaml")


# content of s.yaml, for `compare.py --settings` -> part of the message
SETTINGS: dict[str, str] = {
    "": "s.yaml: expected settings",
    "a: {}": "at least two settings",
    "a: {}\nb: 5": "s.yaml: b: expected overrides as a mapping, got 5",
    "a: {}\nb: [phi]": "s.yaml: b: expected overrides as a mapping",
    "a: {}\nb: {phi: see}": "did you mean 'se'",
    "a: {}\nb: {phy: se}": "setting 'b': ",
    "a: {}\nb: {train: {epochs: 0}}": "setting 'b': ",
    "a: {}\nb: {train.epochs: .nan}": "setting 'b': ",
    "a: {}\nb: {seed: half}": "setting 'b': seed: expected an integer",
    "a: {}\nb: {seed: -1}": "seed",
    "a: {}\nb: {seed: 99999999999999999999}": "seed",
    "a: {}\nb: {name: x}": "setting 'b': name is set by the comparison",
    "a: {}\nb: {output: x}": "setting 'b': output is set by the comparison",
    "a: {}\nb: {data.shapes_val: 3}": "setting 'b': data.shapes_val differs",
    "a: {}\nb: {train: null}": "setting 'b': train: is a section",
    "A: {}\na: {phi: se}": "another setting has the same folder",
    "a/b: {}\na_b: {phi: se}": "another setting has the same folder",
    "a: {}\na: {phi: se}": "the key a is set twice",
    "a: {}\n? {b: c}\n: {}": "expected a name or an integer as key",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", SETTINGS, ids=range(len(SETTINGS)))
def test_settings_that_cannot_be_compared_are_one_line(text: str, refused: Callable[..., str]):
    Path("s.yaml").write_text(text)
    words = ("compare", "--config", "shapes.yaml", "--settings", "s.yaml", *SHORT)
    assert SETTINGS[text] in refused(*words)
