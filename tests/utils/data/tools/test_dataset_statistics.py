"""The numbers of `stats`, against supervision's and cases worked out by hand."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import exports
import numpy as np
import pytest

from utils.core.config import make_config
from utils.data.sample import Sample
from utils.data.tools.inventory import read_inventory
from utils.data.tools.statistics import GRID, _coverage, measure, remarks, small_share

Call = Callable[..., int]
Loader = Callable[[Path], object]


def supervised(dataset) -> tuple[int, Counter]:
    """Images, and objects per class name, as supervision counts them."""
    counts: Counter = Counter()
    for annotations in dataset.annotations.values():
        counts.update(dataset.classes[index] for index in annotations.class_id)
    return len(dataset.image_paths), counts


def from_voc(folder: Path):
    from supervision import DetectionDataset

    return DetectionDataset.from_pascal_voc(str(folder), str(folder))


def from_coco(folder: Path):
    from supervision import DetectionDataset

    return DetectionDataset.from_coco(str(folder), str(folder / "_annotations.coco.json"))


def from_yolo(folder: Path):
    from supervision import DetectionDataset

    return DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder.parent / "data.yaml")
    )


@pytest.mark.parametrize(
    ("export", "loader"),
    [
        (exports.roboflow_voc, from_voc),
        (exports.roboflow_coco, from_coco),
        (exports.roboflow_yolo, from_yolo),
    ],
)
def test_counts_are_those_of_supervision(
    export: Callable, loader: Loader, call: Call, tmp_path: Path
):
    pytest.importorskip("supervision")
    export(tmp_path / "data")
    assert call("stats", "--root", "data", "--json", "numbers.json") == 0
    splits = json.loads((tmp_path / "numbers.json").read_text())["splits"]
    names = {"train": "train", "valid": "valid", "val": "valid"}
    assert len(splits) == 2
    for name, numbers in splits.items():
        images, counts = supervised(loader(tmp_path / "data" / names[name]))
        assert numbers["images"] == images
        present = {label: count for label, count in numbers["per_class"].items() if count}
        assert present == counts


def page(call: Call, folder: Path, root: Path, *words: object) -> str:
    assert call("stats", "--root", root, "--out", "page.html", *words) == 0
    return (folder / "page.html").read_text()


def test_the_page_has_the_numbers_and_needs_no_network(
    call: Call, write: SimpleNamespace, tmp_path: Path
):
    items = [
        write.Item("a.jpg", (416, 416), [("cat", 0, 0, 6, 6)] * 1 + [("dog", 9, 9, 99, 99)]),
        write.Item("b&<b>.jpg", (416, 416)),
    ]
    root = write.yolo(tmp_path / "data", items)
    source = page(call, tmp_path, root)
    assert not any(word in source for word in ("url(", "@import", "<script", "http"))
    assert "<tr><td>train</td><td>2</td><td>1</td><td>2</td><td>1.00</td></tr>" in source
    assert "<tr><td>cat</td><td>1</td></tr>" in source
    assert "50% of the objects are smaller than 8 px at 416x416" in source
    assert "&#39;train&#39; has no objects of owl" in source
    assert "<b>" not in source  # names are escaped
    images = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"', source)
    assert Counter(kind for kind, _ in images) == {"png": 5, "jpeg": 1}
    assert all(len(base64.b64decode(data)) > 500 for _, data in images)


def test_a_dataset_without_any_object_has_a_page(
    call: Call, write: SimpleNamespace, tmp_path: Path
):
    root = write.yolo(tmp_path / "data", [write.Item("a.jpg", (40, 40))])
    assert "100% of the images have no objects" in page(call, tmp_path, root)


def test_coverage_counts_the_objects_over_a_place():
    boxes = np.array([[0, 0, 50, 100], [0, 0, 100, 20], [0, 0, 100, 200]], np.float32)
    crowd = np.array([False, False, True])
    coverage = _coverage([Sample(Path("a"), 100, 200, boxes, crowd=crowd)])
    assert coverage.shape == (GRID, GRID)
    assert coverage[0, 0] == 2 and coverage[0, -1] == 1
    assert coverage[GRID // 2 - 1, 0] == 1 and coverage[-1, -1] == 0


def test_small_objects_at_another_size_and_what_is_said_about_them(
    write: SimpleNamespace, tmp_path: Path
):
    boxes = [("cat", 100, 100, 106, 106), ("cat", 0, 0, 90, 90)]
    root = write.yolo(tmp_path, [write.Item("a.jpg", (416, 416), boxes)])
    statistics = measure(read_inventory(make_config({"data": {"root": str(root)}})), [])
    assert small_share(statistics, (416, 416)) == 0.5
    assert small_share(statistics, (608, 608)) == 0  # 6 px become 8.8
    assert any("0% at 608x608: set input_size=608" in line for line in remarks(statistics))


def test_leaks_and_rare_classes_are_told(call: Call, write: SimpleNamespace, tmp_path: Path):
    root = write.yolo(tmp_path / "data")
    write.yolo(root, split="val")
    source = page(call, tmp_path, root)
    assert "3 images of &#39;val&#39; are also in &#39;train&#39;" in source
    assert "fewer than 20 objects to learn from: cat (1), dog (1), owl (1)." in source


def test_anchors_are_fitted_and_compared(
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    sizes = (2, 3, 200, 210, 300, 310)
    boxes = [("cat", 0, 0, side, side) for side in sizes]
    root = write.yolo(tmp_path / "data", [write.Item("a.jpg", (416, 416), boxes)])
    assert call("anchors", "--root", root, "--json", "anchors.json") == 0
    numbers = json.loads((tmp_path / "anchors.json").read_text())
    assert numbers["fitted"]["anchors"] == [[side, side] for side in sizes]
    assert numbers["fitted"]["recall"] == numbers["fitted"]["mean_iou"] == 1
    # 2x2 and 3x3 are more than four times smaller than the smallest anchor, 10x14
    assert numbers["darknet"]["recall"] == pytest.approx(4 / 6)
    line = capsys.readouterr().out.splitlines()[-1].strip("'")
    assert call("check", "--root", root, line) == 0  # the key is one of the configuration
    assert call("anchors", "--root", root, "--count", 3) == 0
    assert "(this network takes 6)" in capsys.readouterr().out


def test_three_heads_take_nine_anchors_and_see_smaller_objects(
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Half a cell of the finest map is 4 pixels, not 8."""
    sides = (3, 6, 60, 70, 80, 90, 100, 110, 120)
    boxes = [("cat", 0, 0, side, side) for side in sides]
    root = write.yolo(tmp_path / "data", [write.Item("a.jpg", (416, 416), boxes)])
    assert call("anchors", "--root", root, "--json", "a.json", "model.heads=3") == 0
    numbers = json.loads((tmp_path / "a.json").read_text())
    assert numbers["fitted"]["anchors"] == [[side, side] for side in sides]
    assert len(numbers["darknet"]["anchors"]) == 9
    assert "(this network takes" not in capsys.readouterr().out
    told = {}
    for heads in (2, 3):
        words = ("stats", "--root", root, "--out", "a.html", "--json", "s.json")
        assert call(*words, f"model.heads={heads}") == 0
        statistics = json.loads((tmp_path / "s.json").read_text())
        assert statistics["small_share"] == pytest.approx((4 - heads) / 9)
        told[heads] = " ".join(statistics["remarks"])
    assert "smaller than 8 px" in told[2] and "(stride 16) is hard" in told[2]
    assert "smaller than 4 px" in told[3] and "(stride 8) is hard" in told[3]
