"""One evaluator: training and `eval.py` give the same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nets.inference.detector import Detector
from nets.loading import load_model
from utils.core.errors import UserError
from utils.core.images import read_image, write_image
from utils.core.schema import Config
from utils.data.dataset import DetectionDataset
from utils.engine.datasets import open_dataset
from utils.engine.evaluation import (
    Evaluation,
    detect_dataset,
    evaluate_detector,
    evaluate_weights,
)
from utils.engine.experiment import Result


def test_eval_repeats_the_numbers_of_the_training(trained: Result, tmp_path: Path):
    evaluation = evaluate_weights(
        str(trained.run), json_path=str(tmp_path / "new" / "numbers.json")
    )
    numbers = json.loads((tmp_path / "new" / "numbers.json").read_text())
    expected = json.loads((trained.run / "metrics.json").read_text())
    assert numbers.pop("seconds") > 0 and expected.pop("seconds") > 0
    assert numbers == expected
    assert {
        "map50",
        "map50_95",
        "voc_ap50",
        "per_class",
        "images",
        "params",
        "gflops",
    } <= numbers.keys()
    assert {"ap50", "ap50_95", "images", "objects"} <= numbers["per_class"]["circle"].keys()
    assert evaluation.metrics.images == numbers["images"] == 8


def test_the_batch_size_changes_nothing(trained: Result):
    first = evaluate_weights(str(trained.run), changes={"eval.batch_size": 8})
    second = evaluate_weights(str(trained.run), changes={"eval.batch_size": 3})
    for in_one, in_three in zip(first.detections, second.detections, strict=True):
        assert len(in_one) == len(in_three) > 0
        np.testing.assert_allclose(np.sort(in_one.scores), np.sort(in_three.scores), atol=1e-5)


def test_limits_and_split_are_as_asked(trained: Result):
    cut = evaluate_weights(str(trained.run), changes={"eval.max_detections": 3})
    assert max(map(len, cut.detections)) == 3
    assert evaluate_weights(str(trained.run), split="train").metrics.images == 16


def test_evaluation_takes_the_path_of_prediction(trained: Result, tmp_path: Path):
    """The boxes that are measured are those that an image file gives."""
    detector = load_model(trained.run, {"eval.batch_size": 1})
    dataset = open_dataset(detector.config, "val")
    measured = detect_dataset(detector, dataset, progress=False)
    for index in (0, 5):
        draw = dataset.samples[index].draw
        assert draw is not None
        write_image(tmp_path / "image.png", draw())
        assert (read_image(tmp_path / "image.png") == draw()).all()
        alone = detector(tmp_path / "image.png", detector.config.eval)
        np.testing.assert_allclose(alone.boxes, measured[index].boxes, atol=1e-2)
        np.testing.assert_allclose(alone.scores, measured[index].scores, atol=1e-5)


def test_a_perfect_detector_has_ap_1(trained: Result, monkeypatch: pytest.MonkeyPatch):
    detector = load_model(trained.run)
    dataset = open_dataset(detector.config, "val")
    perfect = []
    for detections, sample in zip(detect_dataset(detector, dataset), dataset.samples, strict=True):
        scores = np.ones(len(sample.labels), np.float32)
        perfect.append(replace(detections, boxes=sample.boxes, labels=sample.labels, scores=scores))
    monkeypatch.setattr("utils.engine.evaluation.detect_dataset", lambda *args: perfect)
    evaluation = evaluate_detector(detector, dataset)
    assert evaluation.metrics.map50_95 == 1 and evaluation.seconds >= 0


def test_plots_are_drawn_where_asked(trained: Result, tmp_path: Path):
    evaluate_weights(str(trained.run), plots=str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "pr.png",
        "confusion.png",
        "predictions.png",
    }


def test_other_data_needs_the_classes_of_the_network(trained: Result, tiny: Callable[..., Config]):
    tiny()  # works in an empty folder
    labels, images = Path("labels/val"), Path("images/val")
    labels.mkdir(parents=True)
    write_image(images / "a.png", np.zeros((40, 40, 3), np.uint8))
    (labels / "a.txt").write_text("9 0.5 0.5 0.2 0.2\n")
    Path("data.yaml").write_text("data: {format: yolo, root: ., train: val, val: val}\n")
    with pytest.raises(UserError, match="class"):
        evaluate_weights(str(trained.run), config="data.yaml")
    with pytest.raises(UserError, match="--weights nothing"):
        evaluate_weights("nothing")


@pytest.mark.parametrize("data_format", ["auto", "yolo"])
def test_numbers_in_another_order_are_refused(
    trained: Result, tiny: Callable[..., Config], data_format: str
):
    """YOLO labels are numbers: the network's names would be given to the wrong objects."""
    tiny()  # works in an empty folder
    write_image("images/val/a.png", np.zeros((40, 40, 3), np.uint8))
    Path("labels/val").mkdir(parents=True)
    Path("labels/val/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    names = ", ".join(reversed(load_model(trained.run).names))
    Path("data.yaml").write_text(
        f"data: {{format: {data_format}, root: ., train: val, val: val, classes: [{names}]}}\n"
    )
    with pytest.raises(UserError, match="expected those of the network"):
        evaluate_weights(str(trained.run), config="data.yaml")


def test_int8_is_calibrated_on_the_data_that_is_evaluated(
    trained: Result, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    tiny()  # works in an empty folder
    Path("other.yaml").write_text("data: {format: shapes, shapes_train: 5, shapes_val: 3}\n")
    detectors: list[Detector] = []

    def remember(detector: Detector, dataset: DetectionDataset) -> Evaluation:
        detectors.append(detector)
        return evaluate_detector(detector, dataset)

    monkeypatch.setattr("utils.engine.evaluation.evaluate_detector", remember)
    evaluation = evaluate_weights(str(trained.run), config="other.yaml")
    assert evaluation.metrics.images == 3
    assert detectors[0].model_spec.calibration is not None
    assert len(detectors[0].model_spec.calibration()) == 5


def test_runs_are_looked_up_where_output_says(trained: Result, tiny: Callable[..., Config]):
    tiny()
    output = str(trained.run.parent)
    assert evaluate_weights(None, changes={"output": output}).metrics.images == 8
    Path("other.yaml").write_text(f"output: {output}\ndata: {{format: shapes, shapes_val: 3}}\n")
    assert evaluate_weights(trained.run.name, config="other.yaml").metrics.images == 3
