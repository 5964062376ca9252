"""One evaluator: training and `eval.py` give the same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nets.loading import load_model
from utils.core.errors import UserError
from utils.core.images import read_image
from utils.core.schema import Config
from utils.engine.datasets import open_dataset
from utils.engine.eval_command import evaluate_weights
from utils.engine.evaluation import evaluate_detector, run_detector
from utils.engine.experiment import Result
from utils.visualization.boxes import write_image


def test_eval_repeats_the_numbers_of_the_training(trained: Result, tmp_path: Path):
    evaluation = evaluate_weights(
        str(trained.run), json_path=str(tmp_path / "new" / "numbers.json")
    )
    mine = json.loads((tmp_path / "new" / "numbers.json").read_text())
    theirs = json.loads((trained.run / "metrics.json").read_text())
    assert mine.pop("seconds") > 0 and theirs.pop("seconds") > 0
    assert mine == theirs
    assert {
        "map50",
        "map50_95",
        "voc_ap50",
        "per_class",
        "images",
        "params",
        "gflops",
    } <= mine.keys()
    assert {"ap50", "ap50_95", "images", "objects"} <= mine["per_class"]["circle"].keys()
    assert evaluation.metrics.images == mine["images"] == 8


def test_the_batch_size_changes_nothing(trained: Result):
    first = evaluate_weights(str(trained.run), changes={"eval.batch_size": 8})
    second = evaluate_weights(str(trained.run), changes={"eval.batch_size": 3})
    for one, other in zip(first.detections, second.detections, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(np.sort(one.scores), np.sort(other.scores), atol=1e-5)


def test_limits_and_split_are_as_asked(trained: Result):
    cut = evaluate_weights(str(trained.run), changes={"eval.max_detections": 3})
    assert max(map(len, cut.detections)) == 3
    assert evaluate_weights(str(trained.run), split="train").metrics.images == 16


def test_evaluation_takes_the_path_of_prediction(trained: Result, tmp_path: Path):
    """The boxes that are measured are those that an image file gives."""
    detector = load_model(trained.run, {"eval.batch_size": 1})
    pictures = open_dataset(detector.config, "val")
    measured = run_detector(detector, pictures, progress=False)
    for index in (0, 5):
        draw = pictures.samples[index].draw
        assert draw is not None
        write_image(tmp_path / "picture.png", draw())
        assert (read_image(tmp_path / "picture.png") == draw()).all()
        alone = detector(tmp_path / "picture.png", detector.config.eval)
        np.testing.assert_allclose(alone.boxes, measured[index].boxes, atol=1e-2)
        np.testing.assert_allclose(alone.scores, measured[index].scores, atol=1e-5)


def test_a_perfect_detector_has_ap_1(trained: Result, monkeypatch: pytest.MonkeyPatch):
    detector = load_model(trained.run)
    pictures = open_dataset(detector.config, "val")
    found = [
        replace(
            one,
            boxes=sample.boxes,
            labels=sample.labels,
            scores=np.ones(len(sample.labels), np.float32),
        )
        for one, sample in zip(run_detector(detector, pictures), pictures.samples, strict=True)
    ]
    monkeypatch.setattr("utils.engine.evaluation.run_detector", lambda *args: found)
    evaluation = evaluate_detector(detector, pictures)
    assert evaluation.metrics.map50_95 == 1 and evaluation.seconds >= 0


def test_pictures_are_drawn_where_asked(trained: Result, tmp_path: Path):
    evaluate_weights(str(trained.run), pictures_dir=str(tmp_path / "out"))
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
