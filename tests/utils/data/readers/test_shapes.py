"""The drawn dataset: the same everywhere, boxes that hug what is seen, the promised variety."""

import dataclasses
import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.core.schema import DataConfig
from utils.data.loading import load_dataset
from utils.data.readers import shapes


def load(split="train", size=(128, 160), **keys):
    return load_dataset(DataConfig(**keys), split, size)


def digest(samples) -> str:
    parts = [
        sample.draw().tobytes() + sample.boxes.tobytes() + sample.labels.tobytes()
        for sample in samples
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_counts_sizes_and_names():
    split = load(shapes_train=7, shapes_val=4)
    assert len(split.samples) == 7
    assert len(load("val", shapes_train=7, shapes_val=4).samples) == 4
    assert split.class_names == shapes.NAMES
    assert len({sample.path for sample in split.samples}) == 7
    for sample in split.samples:
        image = sample.draw()
        assert image.shape == (128, 160, 3) == (sample.height, sample.width, 3)
        assert image.dtype == np.uint8


def test_same_in_another_process():
    script = (
        "import sys; sys.path.insert(0, 'tests/utils/data/readers')\n"
        "from test_shapes import digest, load\n"
        "print(digest(load(shapes_train=4).samples))"
    )
    root = Path(__file__).resolve().parents[4]
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == digest(load(shapes_train=4).samples)


def test_seed_split_and_index_act_and_the_count_does_not():
    few, more = load(shapes_train=3).samples, load(shapes_train=6).samples
    assert digest(few) == digest(more[:3])
    images = [sample.draw() for sample in more]
    images += [
        load(name, shapes_train=1, shapes_seed=seed).samples[0].draw()
        for name, seed in (("val", 0), ("train", 1))
    ]
    assert len({image.tobytes() for image in images}) == len(images)


def test_samples_can_be_pickled():
    [sample] = load(shapes_train=1).samples
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sample)).draw(), sample.draw())


def visible_share(placed, masks, shape_index: int) -> np.ndarray:
    """How much of each pixel shows a shape: its change with the shape's color, in 0..1."""
    blank = np.full((*masks[0].shape, 3), 128, np.float32)

    def change(coverages) -> np.ndarray:
        views = []
        for value in (60.0, 180.0):
            painted = list(placed)
            painted[shape_index] = dataclasses.replace(placed[shape_index], color=(value,) * 3)
            scene = shapes.Drawing(blank, tuple(painted), tuple(coverages))
            views.append(shapes.render(scene, np.random.default_rng(0)).astype(float).mean(2))
        return views[1] - views[0]

    alone = [
        np.full_like(mask, 1.0 if index == shape_index else 1e-9)
        for index, mask in enumerate(masks)
    ]
    return change(masks) / change(alone)


@pytest.mark.parametrize("index", range(12))
def test_boxes_hug_the_pixels_that_show_the_shape(index):
    height, width = 160, 160
    placed, masks = shapes.place_shapes(0, "train", index, height, width)
    sample = load(size=(height, width), shapes_train=index + 1).samples[index]
    assert len(sample.boxes) == len(placed)
    for shape_index, box in enumerate(sample.boxes):
        share = visible_share(placed, masks, shape_index)
        ys, xs = np.nonzero(share > 0.54)
        assert (xs >= box[0]).all()
        assert (ys >= box[1]).all()
        assert (xs < box[2]).all()
        assert (ys < box[3]).all()
        x1, y1, x2, y2 = box.astype(int)
        inside = share[y1:y2, x1:x2] > 0.46
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_lone_shapes_have_their_exact_extent():
    radius, center = 20.0, (50.0, 40.0)
    half = radius / np.sqrt(2)
    expected = {
        "circle": (30, 20, 70, 60),
        "ring": (30, 20, 70, 60),
        "square": (50 - half, 40 - half, 50 + half, 40 + half),
        "triangle": (50 - radius * np.sqrt(3) / 2, 20, 50 + radius * np.sqrt(3) / 2, 50),
        "cross": (
            50 - 0.944 * radius,
            40 - 0.944 * radius,
            50 + 0.944 * radius,
            40 + 0.944 * radius,
        ),
        "star": (
            50 - radius * np.sin(0.4 * np.pi),
            20,
            50 + radius * np.sin(0.4 * np.pi),
            40 + radius * np.cos(0.2 * np.pi),
        ),
    }
    areas = {
        "circle": np.pi * radius**2,
        "ring": np.pi * radius**2 * (1 - 0.55**2),
        "square": 2 * radius**2,
        "triangle": 3 * np.sqrt(3) / 4 * radius**2,
    }
    for label, name in enumerate(shapes.NAMES):
        shape = shapes.Shape(label, center, radius, 0.0, (0, 0, 0), 0.0)
        mask, area = shapes.coverage(shape, 80, 100)
        ys, xs = np.nonzero(mask > 0)
        extent = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        np.testing.assert_allclose(extent, expected[name], atol=1.01, err_msg=name)
        assert mask.sum() == pytest.approx(area, rel=1e-5)
        if name in areas:
            assert area == pytest.approx(areas[name], rel=0.03), (
                name
            )  # cv2 fills the outline's own pixels too


def test_area_counts_what_is_outside_the_image():
    shape = shapes.Shape(0, (0.0, 30.0), 20.0, 0.0, (0, 0, 0), 0.0)
    mask, area = shapes.coverage(shape, 60, 60)
    assert mask.sum() / area == pytest.approx(0.5, abs=0.02)


def test_every_shape_is_mostly_visible():
    for index in range(40):
        placed, masks = shapes.place_shapes(3, "train", index, 96, 96)
        for shape, part in zip(placed, shapes.visible_parts(masks), strict=True):
            assert part.sum() >= shapes.MIN_VISIBLE * shapes.coverage(shape, 96, 96)[1] * (1 - 1e-5)


def test_same_scene_at_another_size():
    small, large = (load(size=(side, side), shapes_train=20).samples for side in (128, 256))
    pairs = [
        (a, b) for a, b in zip(small, large, strict=True) if a.labels.tolist() == b.labels.tolist()
    ]
    assert len(pairs) >= 18  # a placement at the edge of the rule may fall to the other side
    shift = np.concatenate([np.abs(a.boxes - b.boxes / 2) for a, b in pairs])
    assert np.percentile(shift, 95) <= 1.5


def test_variety():
    samples = load(size=(224, 224), shapes_train=150).samples
    labels = np.concatenate([sample.labels for sample in samples])
    assert np.bincount(labels, minlength=len(shapes.NAMES)).min() > 0.1 * len(labels)
    boxes = np.concatenate([sample.boxes for sample in samples])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1))
    assert np.percentile(sides, 98) / np.percentile(sides, 2) > 3.5
    assert sides.min() > 12
    counts = [len(sample.boxes) for sample in samples]
    assert min(counts) == 1
    assert max(counts) == shapes.MAX_SHAPES
