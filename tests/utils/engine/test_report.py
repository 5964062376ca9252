"""The numbers and images of an evaluation."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nets.inference.detections import Detections
from nets.loading import load_model
from utils.core.errors import UserError
from utils.core.images import PAD_VALUE, read_image
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.engine.datasets import open_dataset
from utils.engine.experiment import Result
from utils.engine.report import draw_predictions, write_batch, write_json


def test_the_numbers_name_cost_and_time(trained: Result):
    detector = load_model(trained.run)
    numbers = trained.evaluation.to_json(detector)
    assert numbers["params"] == sum(p.numel() for p in detector.network.parameters())
    larger = trained.evaluation.to_json(load_model(trained.run, input_size=128))
    assert larger["gflops"] == pytest.approx(4 * numbers["gflops"], rel=0.01)
    assert numbers["seconds"] > 0 and json.loads(json.dumps(numbers)) == numbers


def test_json_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*numbers\.json"):
        write_json(tmp_path / "file" / "numbers.json", {})


def test_predictions_show_truth_beside_detections(trained: Result):
    dataset = open_dataset(load_model(trained.run).config, "val")
    detections = trained.evaluation.detections
    default = draw_predictions(detections, dataset)
    nothing = draw_predictions(detections, dataset, score=2.0)
    everything = draw_predictions(detections, dataset, score=0.0)
    assert default.dtype == np.uint8 and default.ndim == 3
    assert (nothing != everything).any()


def test_labels_are_of_one_size_whatever_the_size_of_the_image():
    samples, detections = [], []
    for side in (100, 700):
        gray = partial(np.full, (side, side, 3), 128, np.uint8)
        box = np.array([[120.4, 160.4, 330.6, 430.6]], np.float32) / 480 * side
        label = np.zeros(1, np.int64)
        path = Path(f"{side}.png")
        samples.append(Sample(path, side, side, box, label, draw=gray))
        detections.append(Detections(box, np.array([0.9]), label, ("bolt",), side, side))
    drawn = draw_predictions(detections, DetectionDataset(samples, (64, 64), class_names=("bolt",)))
    gap = 5
    side = drawn.shape[0]
    cells = [drawn[:, x : x + side] for x in range(0, 4 * (side + gap), side + gap)]
    assert drawn.shape == (side, 4 * side + 3 * gap, 3)
    assert np.array_equal(cells[0], cells[2]) and np.array_equal(cells[1], cells[3])


def test_an_image_that_cannot_be_decoded_is_drawn_gray(tmp_path: Path):
    """A finished training could never be closed otherwise: its metrics come after the drawing."""
    path = tmp_path / "damaged.png"
    path.write_bytes(b"no image")
    box, label = np.array([[4, 4, 30, 30]], np.float32), np.zeros(1, np.int64)
    dataset = DetectionDataset([Sample(path, 64, 64, box, label)], (64, 64), class_names=("bolt",))
    found = Detections(box, np.array([0.9]), label, ("bolt",), 64, 64)
    drawn = draw_predictions([found], dataset)
    assert (drawn == PAD_VALUE).all(2).mean() > 0.5 and (drawn != PAD_VALUE).any()


def test_a_batch_is_drawn_as_the_network_sees_it(tmp_path: Path):
    boxes = torch.tensor([[[8.0, 8, 40, 40]], [[0.0, 0, 0, 0]]])
    for count in (2, 20):  # more than 16 images are not drawn
        batch = Batch(
            torch.full((count, 3, 64, 64), 0.5),
            boxes.repeat(count // 2, 1, 1),
            torch.tensor([[1], [-1]]).repeat(count // 2, 1),
        )
        write_batch(tmp_path / f"{count}.png", batch, ("a", "b"))
    small, large = read_image(tmp_path / "2.png"), read_image(tmp_path / "20.png")
    assert small.std() > 0 and large.size > small.size


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(Path, "replace", lambda *args: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_json_goes_to_a_device_as_it_is():
    write_json(Path("/dev/null"), {"a": 1})
    assert not Path("/dev/null").is_file()
