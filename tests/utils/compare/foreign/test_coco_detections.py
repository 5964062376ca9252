"""Detections of other programs: AP is pycocotools', images are found, files are not trusted."""

import contextlib
import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.utils.compare.foreign_files import IDS, write
from utils.compare.foreign.coco_detections import read_detections
from utils.compare.foreign.coco_truth import Truth, read_truth
from utils.compare.statistics.bootstrap import WeightedAP
from utils.core.errors import UserError
from utils.metrics import evaluate


def test_ap_is_that_of_pycocotools(content, truth: Truth, tmp_path: Path):
    detections = read_detections(write(tmp_path / "dets.json", content[1]), truth)
    assert detections.dropped > 10
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO(str(truth.path))
        oracle = COCOeval(objects, objects.loadRes(copy.deepcopy(content[1])), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    assert 0.1 < oracle.stats[0] < 0.9
    metrics = evaluate(truth.samples, detections.detections, truth.class_names)
    assert (metrics.map50_95, metrics.map50) == pytest.approx(oracle.stats[:2], abs=1e-12)
    scorer = WeightedAP(truth.samples, detections.detections, len(truth.class_names))
    ap, ap50 = scorer.compute(np.ones((1, len(IDS)), np.float32))
    assert (ap[0], ap50[0]) == pytest.approx(100 * oracle.stats[:2], abs=1e-10)


def test_images_are_found_by_id_or_by_file_name(content, truth: Truth, tmp_path: Path):
    def scores(rename: Callable[[dict[str, Any]], dict[str, Any]]) -> list[list[float]]:
        entries = [{**entry, **rename(entry)} for entry in content[1]]
        found = read_detections(write(tmp_path / "dets.json", entries), truth).detections
        return [each.scores.tolist() for each in found]

    names = {image_id: f"im_{number}" for number, image_id in enumerate(IDS)}
    expected = scores(lambda entry: {})
    assert scores(lambda entry: {"image_id": str(entry["image_id"])}) == expected
    assert scores(lambda entry: {"image_id": names[entry["image_id"]]}) == expected
    ultralytics = {"image_id": 5}  # a number from the stem; the file name is the better witness
    assert expected == scores(
        lambda entry: {**ultralytics, "file_name": f"{names[entry['image_id']]}.jpg"}
    )


def test_numbered_images_are_found_by_their_number_only_if_it_is_no_id(content, tmp_path: Path):
    objects = copy.deepcopy(content[0])
    for number, image in enumerate(objects["images"]):
        image["file_name"] = f"{number + 100:06}.jpg"
    truth = read_truth(write(tmp_path / "instances.json", objects))
    entry = {**content[1][0], "image_id": 103}
    found = read_detections(write(tmp_path / "dets.json", [entry]), truth)
    assert [len(each) for each in found.detections].index(1) == sorted(IDS).index(IDS[3])
    objects["images"][0]["file_name"], objects["images"][1]["file_name"] = "3.jpg", "5.jpg"
    truth = read_truth(write(tmp_path / "instances.json", objects))
    read = read_detections(write(tmp_path / "dets.json", [{**entry, "image_id": 5}]), truth)
    assert read.is_ambiguous and len(read.detections[sorted(IDS).index(5)]) == 1


def test_what_looks_like_a_mistake_is_told(content, truth: Truth, tmp_path: Path):
    def read(**changes: Any) -> Any:
        return read_detections(write(tmp_path / "dets.json", entries(**changes)), truth)

    def entries(box: Any = list, names: Any = dict) -> list[dict[str, Any]]:
        found = []
        for each in content[0]["annotations"] * 2:
            label = names({1: 1, 4: 4})[each["category_id"]]
            entry = {"image_id": each["image_id"], "category_id": label, "score": 0.5}
            found.append({**entry, "bbox": box(each["bbox"])})
        return found

    right, half = read(), len(content[0]["annotations"])
    assert (right.are_boxes_odd, right.are_classes_odd, right.repeated) == (False, False, half)
    assert read(box=lambda box: [*box[:2], 150 + box[2], 100 + box[3]]).are_boxes_odd
    assert read(box=lambda box: [value / 200 for value in box]).are_boxes_odd
    assert read(names=lambda _: {1: 4, 4: 1}).are_classes_odd


GOOD = {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
MISTAKES = {
    "no JSON": ('[{"image_id": 5', "not valid JSON"),
    "an object": ({"annotations": []}, "expected a valid array"),
    "no score": ([{key: GOOD[key] for key in GOOD if key != "score"}], r"0\.score is missing"),
    "a score of percents": ([GOOD, {**GOOD, "score": 97.5}], r"1\.score: .* equal to 1"),
    "a negative score": ([{**GOOD, "score": -0.1}], r"0\.score: expected"),
    "NaN": ('[{"image_id":5,"category_id":1,"bbox":[1,2,3,4],"score":NaN}]', r"score: .* finite"),
    "a box with NaN": (
        '[{"image_id":5,"category_id":1,"bbox":[NaN,2,3,4],"score":0.5}]',
        r"0\.bbox\.0: .*finite",
    ),
    "a negative side": ([{**GOOD, "bbox": [1, 2, -3, 4]}], r"0\.bbox\.2: .* equal to 0, got -3"),
    "three numbers": ([{**GOOD, "bbox": [1, 2, 3]}], r"0\.bbox\.3 is missing"),
    "five numbers": ([{**GOOD, "bbox": [1, 2, 3, 4, 5]}], r"0\.bbox: .* at most 4"),
    "text in a box": ([{**GOOD, "bbox": ["1", 2, 3, 4]}], r"0\.bbox\.0: expected a valid number"),
    "an unknown image": ([GOOD, {**GOOD, "image_id": 99}], "entry 1: image_id 99 is no image"),
    "an unknown name": ([{**GOOD, "image_id": "x"}], "entry 0: image_id 'x' .* such as 1 or 'a/im"),
    "an unknown category": (
        [GOOD, {**GOOD, "category_id": 0}],
        "entry 1: category_id 0, expected one of 1 cell, 4 nucleus, 7 unused; .* settings.yaml: s:",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_take_one_line(mistake: str, truth: Truth, tmp_path: Path):
    text, words = MISTAKES[mistake]
    path = write(tmp_path / "s" / "seed-0.json", text)
    with pytest.raises(UserError) as caught:
        read_detections(path, truth)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and re.search(words, message) and "\n" not in message
