"""Slips of users that concern several parts at once, through the command lines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from robust_data import BOX, ITEMS, NAMES, Read, assert_read

SHORT = ("input_size=64", "train.epochs=1", "data.shapes_train=4", "data.shapes_val=1")
OWN_ORDER = ("ring", "circle", "cross", "star", "square", "triangle")


def renumber(root: Path, names: tuple[str, ...]) -> None:
    """Give the classes of a YOLO dataset other numbers."""
    (root / "data.yaml").write_text(json.dumps({"names": names}))
    for path in (root / "labels/val").iterdir():
        rows = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
        lines = [f"{names.index(NAMES[int(label)])} {box}" for label, box in rows]
        path.write_text("\n".join(lines))


@pytest.mark.parametrize("names", [OWN_ORDER, (*OWN_ORDER, "cat")])
def test_numbers_mean_what_the_dataset_says(
    names: tuple[str, ...],
    written: Callable[[str], Path],
    run: Callable,
    data_words: Callable[..., list[object]],
):
    renumber(written("yolo"), names)
    ended = run("eval", *data_words("yolo"))
    assert ended.code == 0
    per_class = json.loads(Path("numbers.json").read_text())["per_class"]
    counts = {name: row["objects"] for name, row in per_class.items() if row["objects"]}
    assert counts == {box[0]: 1 for item in ITEMS for box in item.boxes}


def test_classes_that_the_network_does_not_know_are_refused(
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    (written("yolo") / "data.yaml").write_text("names: [cat, dog, owl, cow, hen, pig]")
    assert "class 'cat' is not in the class list" in refused("eval", *data_words("yolo"))
    words = ("data.classes=[cat, dog, owl, cow, hen, pig]",)
    assert "data.classes: expected those of" in refused("eval", *data_words("yolo"), *words)


def test_shapes_are_numbered_by_the_list_of_the_user(run: Callable, weights: Path):
    content = torch.load(weights, weights_only=True)
    content["names"] = list(OWN_ORDER)
    torch.save(content, "own.pt")
    objects = []
    for name in (weights, "own.pt"):
        assert run("eval", "--weights", name, "--json", "n.json").code == 0
        per_class = json.loads(Path("n.json").read_text())["per_class"]
        objects.append({name: row["objects"] for name, row in per_class.items()})
    assert objects[0] == objects[1] and len(set(objects[0].values())) > 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["utf-16", "utf-8-sig", "utf-16-le", "gb18030"])
def test_annotations_in_other_encodings(
    mode: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]
):
    path = written("voc") / "Annotations/b.xml"
    text = path.read_text().replace("</annotation>", "<path>圆形的图片</path></annotation>")
    path.write_bytes(text.encode(mode))
    counts = {} if mode == "utf-8-sig" else {"text not in UTF-8": 1}
    assert_read(evaluated("voc"), counts, [BOX])


REFUSED: dict[str, tuple[list[str], str]] = {
    "root of the web": (["data.root=https://host//x", "data.format=coco"],
        "data.root=https://host//x: is an address, expected a folder"),
    "root of a user": (["data.root=~/nothing", "data.format=yolo"], "~/nothing"),
    "root is an archive": (["data.root=d.zip", "data.format=yolo"], "d.zip"),
    "output is a link to nothing": (["output=dangling"], "output=dangling: cannot make folder"),
    "output is a loop": (["output=loop"], "output=loop: "),
    "weights are a run": (["weights=."], ".: is a folder, expected a file"),
    "weights are exported": (["weights=x.onnx"], "x.onnx: expected .pt (ours)"),
    "size of another tool": (["input_size=64x64"], "input_size: expected an integer"),
    "size as a tuple": (["input_size=(64,64)"], "input_size: expected an integer"),
    "two words in one": (["train.epochs=3,seed=1"], "train.epochs: expected 'auto' or an integer"),
    "fraction": (["train.lr=1/100"], "train.lr: expected a"),
    "percent": (["augment.mosaic=50%"], "augment.mosaic: expected a number"),
    "spaces": (["train.epochs", "=", "3"], "expected KEY=VALUE"),
    "Python": (["weights=None"], "None: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_word_of_another_tool_is_one_line(case: str, refused: Callable[..., str]):
    Path("dangling").symlink_to("/nowhere/at/all")
    Path("loop").symlink_to("loop")
    for name in ("d.zip", "x.onnx"):
        Path(name).write_bytes(b"PK\3\4")
    words, message = REFUSED[case]
    assert message in refused("train", "--config", "shapes.yaml", *SHORT, *words)


def test_a_working_directory_that_is_gone_is_one_line(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    shutil.rmtree(gone)
    assert "the working directory was removed" in refused("eval")


@pytest.mark.parametrize(
    ("mode", "option", "value"),
    [
        ("image", "--site", "feat1"),
        ("image", "--point", "1,1"),
        ("image", "--class", "ring"),
        ("heatmap", "--backend", "openvino"),
        ("heatmap", "--precision", "int8"),
    ],
)
def test_an_option_that_a_mode_ignores_is_told(
    mode: str, option: str, value: str, run: Callable, weights: Path
):
    Image.new("RGB", (48, 32)).save("a.png")
    words = ("--source", "a.png", "--mode", mode, option, value)
    if mode == "heatmap":
        words += ("--class", "ring")
    ended = run("predict", "--weights", weights, *words)
    assert ended.code == 0
    assert ended.errors == f"note: {option}: not used in --mode {mode}\n"


def test_a_class_in_other_letters_is_suggested(
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    path = written("coco") / "annotations/instances_val.json"
    path.write_text(path.read_text().replace('"circle"', '"CIRCLE"'))
    assert "did you mean 'circle'?" in refused("eval", *data_words("coco"))


@pytest.mark.slow
def test_opset_that_the_exporter_does_not_reach_is_refused(
    weights: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 99)
    words = ("--weights", weights, "--format", "onnx", "--out", "x.onnx", "--opset", "98")
    assert "--opset 98: PyTorch" in refused("export", *words)
    assert not Path("x.onnx").exists()
