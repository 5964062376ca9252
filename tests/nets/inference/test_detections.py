"""What the detections of an image can become: fewer of them, other libraries' forms, a picture."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections
from nets.losses.assigner import Candidates
from nets.yolo.box_coder import PredictionGrid
from utils.core.errors import UserError
from utils.core.images import write_image

NAMES = ("cat", "dog", "Hündin")


def found(count: int = 4) -> Detections:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 30, (count, 2))
    boxes = np.concatenate([start, start + rng.uniform(1, 20, (count, 2))], 1).astype(np.float32)
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    return Detections(boxes, scores, np.arange(count) % 3, NAMES, 60, 50, "a.png")


def test_only_some_classes_in_the_order_of_the_scores():
    kept = found(6).only(name for name in ("Hündin", "cat"))
    assert kept.labels.tolist() == [0, 2, 0, 2] and (np.diff(kept.scores) < 0).all()
    assert (kept.boxes == found(6).boxes[[0, 2, 3, 5]]).all() and kept.names == NAMES
    assert len(found().only([])) == 0
    assert found(6).only("cat").per_class().keys() == {"cat"}
    with pytest.raises(UserError, match=r"^classes Cat: not in the class list; did you mean 'cat'"):
        found().only(["Cat"])


@pytest.mark.parametrize("count", [0, 4])
def test_supervision_has_the_same_detections(count: int):
    own, theirs = found(count), found(count).to_supervision()
    assert len(theirs) == count
    np.testing.assert_array_equal(theirs.xyxy, own.boxes)
    np.testing.assert_array_equal(theirs.confidence, own.scores)
    assert theirs.data["class_name"].tolist() == [own.names[label] for label in own.labels]
    assert theirs[theirs.class_id == 0].class_id.tolist() == [0] * ((count + 2) // 3)
    assert sv.Detections.merge([theirs, theirs]).xyxy.shape == (2 * count, 4)


def test_entries_of_coco_are_exact():
    first, *_, last = found().to_coco("an id", category_ids=(7, 3, 90))
    assert first["image_id"] == "an id" and (first["category_id"], last["category_id"]) == (7, 7)
    x, y, width, height = first["bbox"]
    assert np.float32([x, y, x + width, y + height]).tolist() == found().boxes[0].tolist()
    assert last["score"] == found().scores[3]
    assert [entry["category_id"] for entry in found().to_coco(1)] == [1, 2, 3, 1]
    assert found(0).to_coco(1) == []


def test_plot_is_what_predict_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    image = np.full((50, 60, 3), 90, np.uint8)
    expected = draw_detections(image, found())
    assert (expected != image).any()
    np.testing.assert_array_equal(found().plot(image), expected)
    write_image("a.png", image)
    np.testing.assert_array_equal(found().plot(), expected)
    with pytest.raises(UserError, match="name no file"):
        replace(found(), image=None).plot()


def test_importing_them_loads_no_runtime():
    code = "import sys, nets.inference.detections; print({'torch', 'cv2'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    "value",
    [
        found(),
        PredictionGrid(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 1)),
        Candidates(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_arrays_can_be_looked_up(value: object):
    assert value in {value} and value != replace(value)  # type: ignore[type-var]
