"""Detections of other programs: AP is pycocotools', the report says what is known, files are not
trusted.
"""

import contextlib
import copy
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import compare as command
from utils.compare.analysis import Comparison
from utils.compare.foreign.coco_detections import read_detections
from utils.compare.foreign.coco_truth import Truth, read_truth
from utils.compare.foreign.trials import make_foreign_plan
from utils.compare.planning.plan import make_plan
from utils.compare.planning.record import read_record
from utils.compare.statistics.bootstrap import Groups, WeightedAP, bootstrap_images
from utils.compare.trials.running import read_state
from utils.compare.verification.verify import verify
from utils.compare.workflow import compare_detections, summarize
from utils.core.errors import UserError
from utils.metrics import evaluate

IDS = (5, 3, 12, 8, 1, 20, 7, 9)  # not in order
CATEGORIES = {1: "cell", 4: "nucleus", 7: "unused"}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def make_truth(generator: np.random.Generator) -> dict[str, Any]:
    images = []
    objects: list[dict[str, Any]] = []
    for number, image_id in enumerate(IDS):
        entry = {"id": image_id, "file_name": f"a/im_{number}.jpg", "width": 200, "height": 150}
        images.append({**entry, "video_id": number // 2})
        for _ in range(generator.integers(1, 6)):
            box = [*generator.uniform(0, 80, 2), *generator.uniform(5, 60, 2)]
            label, crowd = int(generator.choice([1, 4])), int(generator.random() < 0.1)
            number = len(objects) + 1
            objects.append({"image_id": image_id, "category_id": label, "bbox": box, "id": number})
            objects[-1].update(iscrowd=crowd, area=box[2] * box[3])
    categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    return {"images": images, "annotations": objects, "categories": categories}


def detect(
    truth: dict[str, Any], generator: np.random.Generator, noise: float
) -> list[dict[str, Any]]:
    """Boxes near the objects, many false ones with scores of two digits, some repeated."""
    entries = []
    for each in truth["annotations"] * 2:
        box = np.array(each["bbox"]) + generator.normal(0, noise, 4)
        box[2:] = np.maximum(box[2:], 1)
        label = each["category_id"] if generator.random() < 0.9 else 1
        entries.append((each["image_id"], label, box.tolist()))
    for _ in range(130):
        box = [*generator.uniform(-10, 150, 2), *generator.uniform(0, 50, 2)]
        entries.append((IDS[0], 4, box))
    detections = []
    for image, label, box in entries:
        score = round(float(generator.random()), 2)
        entry = {"image_id": image, "category_id": label, "bbox": box, "score": score}
        detections.append(entry)
    return detections


@pytest.fixture(scope="module")
def content() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO file of objects, and one of detections."""
    generator = np.random.default_rng(3)
    truth = make_truth(generator)
    return truth, detect(truth, generator, 2.0)


@pytest.fixture
def truth(content: tuple[dict[str, Any], Any], tmp_path: Path) -> Truth:
    """The objects in a file."""
    return read_truth(write(tmp_path / "instances.json", content[0]))


@pytest.fixture
def folder(content: tuple[dict[str, Any], Any], tmp_path: Path) -> Path:
    """`b` detects better than `a`; three seeds, of which `a` lacks one."""
    for name, noise in (("a", 6.0), ("b", 2.0)):
        for seed in range(3 if name == "b" else 2):
            entries = detect(content[0], np.random.default_rng(seed), noise + seed / 10)
            write(tmp_path / "dets" / name / f"seed-{seed}.json", entries)
    return tmp_path / "dets"


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


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), 5, "different image ids, got one twice"),
        (("images", 0, "width"), 0, r"images\.0\.width"),
        (("annotations", 2, "image_id"), 99, r"annotations\.2: image_id 99 is not in images"),
        (("annotations", 2, "category_id"), 9, r"annotations\.2: category_id 9 is not in categ"),
        (("annotations", 0, "bbox"), [0, 0, -1, 1], r"annotations\.0\.bbox\.2"),
        (("annotations",), [], "expected objects"),
        (("images",), [], "at least two images"),
        (("categories", 1, "name"), "cell", "'cell' is listed twice"),
        (("categories", 1, "id"), 1, "different category ids"),
    ],
)
def test_mistakes_in_the_truth(path, value: Any, words: str, content, tmp_path: Path):
    objects = section = copy.deepcopy(content[0])
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(UserError, match=words):
        read_truth(write(tmp_path / "instances.json", objects))


def run(folder: Path, **options: Any) -> Comparison:
    truth = read_truth(folder.parent / "instances.json", options.get("group"))
    plan = make_foreign_plan(str(folder), truth, out=str(folder.parent / "out"), **options)
    return compare_detections(plan, truth, ["python", "compare.py"])


def test_the_report_says_what_is_known(folder: Path, truth: Truth):
    comparison = run(folder)
    out = folder.parent / "out"
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "a, b; baseline a; 3 seeds; 8 test images; look 1" in text
    assert "on 2 of 3 seeds" in text and "There is no file of a for seed 2: left out" in text
    assert "| seed-2 " not in text and "missing: a, seed 2: no file" in summarize(comparison)
    for unknown in ("parameters", "latency", "training, s", "EMA", "Cost.** Latency"):
        assert unknown not in text
    assert "4 values of video_id" in text and "in 4 groups by video_id" in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "none is drawn" in page and "Over the epochs" not in page and "1 trial" not in page
    assert [entry.kind for entry in read_record(out)] == ["plan", "look"]
    assert "missing" in (out / "trials.csv").read_text()


def test_a_report_can_be_verified(folder: Path, truth: Truth):
    run(folder, group="none")
    out = folder.parent / "out"
    found = verify(out, {})
    assert not found.differences and "trials: 5 of 6 scored again" in found.checked
    with pytest.raises(UserError, match="files of other programs, which have no keys"):
        verify(out, {"data.root": "x"})
    numbers = json.loads((out / "report.json").read_text())
    numbers["numbers"]["settings"]["b"]["ap"]["mean"] += 0.5
    stored = out / "trials" / "b" / "seed-1" / "detections.npz"
    shutil.copy(out / "trials" / "b" / "seed-0" / "detections.npz", stored)
    write(out / "report.json", numbers)
    found = verify(out, {})
    assert f"{stored}: not those of its file" in found.differences
    assert any("report.json: settings.b.ap.mean: stored" in line for line in found.differences)
    (folder / "a" / "seed-0.json").unlink()
    write(folder / "b" / "seed-2.json", [])
    found = verify(out, {})
    assert len(found.differences) == 3 and "nothing was computed again" in found.differences[-1]
    run(folder, group="none")
    assert not verify(out, {}).differences and (out / "plan-2.yaml").is_file()


def test_prices_controls_and_seeds(folder: Path, truth: Truth):
    write(folder.parent / "out-is-beside" / "x", "")
    facts = "a: {params: 1000, gflops: 2, latency_ms: 4.5}\nb: {params: 1500, control_of: a}\n"
    write(folder / "settings.yaml", facts)
    comparison = run(folder, seeds=["0", "1"], baseline="b", group="none", margin=1.0)
    text = (folder.parent / "out" / "report.md").read_text(encoding="utf-8")
    assert "| a | 2 of 2 |" in text and "parameters | GFLOPs | latency, ms |" in text
    assert comparison.groups is None and not comparison.failed
    assert "| 4.5 |" in text and "| – |" in text and "training, s" not in text
    write(folder / "a" / "seed-1.json", [])
    again = run(folder, seeds=["0", "1"], baseline="b", group="none")
    assert again.look == 2 and again.plan.margin == 1.0 and again.results["a", 1].ap == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("settings.yaml", "c: {params: 1}", "c: no such setting.*one of: a, b"),
        ("settings.yaml", "a: {param: 1}", "a: unknown key 'param'; did you mean 'params'"),
        ("settings.yaml", "a: {params: -1}", "a: params: expected"),
        ("settings.yaml", "a: {categories: {0: cel}}", "'cel' is no category.*mean 'cell'"),
        ("settings.yaml", "a: {control_of: a}", "control_of: no other setting"),
        ("a/predictions.json", "[]", "expected one seed-<n>.json"),
        ("a/seed-00.json", "[]", "expected one seed-<n>.json"),
        ("c/notes.txt", "", "c: expected detections in seed-<n>.json, found none"),
    ],
)
def test_mistakes_in_the_folder(name: str, text: str, words: str, folder: Path, truth: Truth):
    write(folder / name, text)
    with pytest.raises(UserError, match=words):
        run(folder)


def test_seeds_that_no_setting_has(folder: Path, truth: Truth):
    with pytest.raises(UserError, match=r"--seeds: no setting in .* has a file"):
        run(folder, seeds=["7"])


def test_categories_can_be_numbered_otherwise(content, folder: Path, truth: Truth):
    before = run(folder).results["a", 0].ap
    for path in (folder / "a").iterdir():
        entries = json.loads(path.read_text())
        path.write_text(
            json.dumps([{**each, "category_id": each["category_id"] - 1} for each in entries])
        )
    write(folder / "settings.yaml", "a: {categories: {0: cell, 3: nucleus}}")
    assert run(folder).results["a", 0].ap == before


def test_trainings_and_detections_do_not_mix(folder: Path, truth: Truth):
    run(folder)
    plan = make_plan("shapes.yaml", ["none", "se"], out=str(folder.parent / "out"))
    trial = plan.trials[0]
    (folder.parent / "out" / "trials" / "a").rename(folder.parent / "out" / "trials" / "none")
    with pytest.raises(UserError, match="holds foreign detections"):
        read_state(trial)
    (folder.parent / "out" / "trials" / "b" / "seed-0" / "last.pt").touch()
    with pytest.raises(UserError, match="holds a training"):
        run(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--detections d", "needs --truth"),
        ("--detections d --truth t --phi se", "--phi: an option of trainings"),
        ("--verify d --seeds 1 2", "--seeds: an option of trainings; --verify reads a finished"),
        ("--verify d train.epochs=2", "--verify with train.epochs=...: only keys of data"),
        ("--detections d --truth t --control params", "--control: an option of trainings"),
        ("--detections d --truth t --seeds 0 train.epochs=3", "train.epochs=3: a key of trainings"),
        ("--config c --truth t", "--truth: belongs to --detections"),
        ("--config c --detections d", "not allowed with"),
        ("--phi se", "--config --detections is required"),
        ("--detections missing --truth missing.json", "missing.json: no such file"),
    ],
)
def test_options_that_do_not_fit(words: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["compare.py", *words.split()])
    with pytest.raises(UserError, match=re.escape(message)):
        command.main()


def test_groups_are_drawn_whole():
    """Two groups of four equal images: the mean of a resample is 0, 1/2 or 1."""
    values = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])

    def mean(weights: np.ndarray) -> np.ndarray:
        means = weights @ values / weights.sum(1)
        assert set(np.round(means, 6)) <= {0.0, 0.5, 1.0}
        return means[None]

    groups = Groups("video_id", np.repeat([0, 1], 4))
    assert bootstrap_images(mean, 8, 200, groups).interval(0) == (0.0, 1.0)
