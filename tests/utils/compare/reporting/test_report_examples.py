"""Images in a report: what is drawn of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from utils.compare.reporting.examples import ExampleFinder
from utils.core.images import PAD_VALUE
from utils.data.sample import Sample


def test_an_image_that_cannot_be_decoded_is_drawn_gray(tmp_path: Path):
    path = tmp_path / "damaged.png"
    path.write_bytes(b"no image")
    box, label = np.array([[10, 10, 50, 50]], np.float32), np.zeros(1, np.int64)
    sample = Sample(path, 64, 64, box, label, file_size=8)
    found = Detections(box, np.array([0.9]), label, ("bolt",), 64, 64)
    nothing = Detections(box[:0], np.zeros(0), label[:0], ("bolt",), 64, 64)
    split = SimpleNamespace(samples=[sample], class_names=("bolt",))
    comparison: Any = SimpleNamespace(splits={"se": split}, results={})
    finder = ExampleFinder(comparison)
    finder._detections = {("none", 0): [nothing], ("se", 0): [found]}
    finder._f1 = {("none", 0): np.zeros(1), ("se", 0): np.ones(1)}
    pair: Any = SimpleNamespace(name="se", reference="none", differences={0: 0.1})
    (example,) = finder.find(pair)
    assert example.name == "damaged.png" and (example.drawn == PAD_VALUE).all(2).mean() > 0.5
