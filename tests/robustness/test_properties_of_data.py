"""What holds for all data: augmentation, annotations in every format, average precision."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.inference.detections import Detections
from tests.dataset_files import NAMES, Item, write_coco, write_voc, write_yolo
from utils.core.schema import AugmentConfig, DataConfig
from utils.data.augmentation import Augmenter, Batch, ImagePool
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.data.warp import MIN_SIDE
from utils.metrics import evaluate

# augmentation

HEIGHT, WIDTH = 24, 40
NOTHING = {
    "mosaic": 0.0, "mixup": 0.0, "fliplr": 0.0, "flipud": 0.0, "scale": (1.0, 1.0),
    "translate": 0.0, "degrees": 0.0, "shear": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0,
}  # fmt: skip
SHARES = st.sampled_from([0.0, 0.5, 1.0])
ZOOMS = st.lists(st.floats(0.05, 20), min_size=2, max_size=2).map(sorted).map(tuple)
AUGMENTATIONS = st.builds(
    AugmentConfig,
    **dict.fromkeys(("mosaic", "mixup", "fliplr", "flipud", "translate", "hsv_s", "hsv_v"), SHARES),
    scale=ZOOMS,
    degrees=st.floats(0, 180),
    shear=st.floats(0, 40),
    hsv_h=st.floats(0, 0.5),
)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def boxes_inside(draw: st.DrawFn, width: int, height: int, least: int = 1) -> tuple[int, ...]:
    """x1 y1 x2 y2, whole numbers, with sides of at least `least`."""
    x1, y1 = draw(st.integers(0, width - least)), draw(st.integers(0, height - least))
    return x1, y1, draw(st.integers(x1 + least, width)), draw(st.integers(y1 + least, height))


def whole(count: int) -> torch.Tensor:
    """Images that fill their canvases."""
    return torch.tensor([[0.0, 0, WIDTH, HEIGHT]]).expand(count, 4)


@st.composite
def pools(draw: st.DrawFn) -> ImagePool:
    """Noise with up to three objects per image; each object has a label of its own."""
    count = draw(st.integers(1, 4))
    canvases = torch.randint(
        0, 256, (count, HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(draw(SEEDS))
    )
    boxes, labels = torch.zeros(count, 3, 4), torch.full((count, 3), -1)
    for index in range(count):
        rows = draw(st.lists(boxes_inside(WIDTH, HEIGHT, int(MIN_SIDE)), max_size=3))
        for place, row in enumerate(rows):
            boxes[index, place] = torch.tensor(row)
            labels[index, place] = 3 * index + place
    return ImagePool(canvases.to(torch.uint8), boxes, labels, (labels >= 0).sum(1), whole(count))


def augment(pool: ImagePool, config: AugmentConfig, seed: int = 0) -> Batch:
    augmenter, generator = Augmenter(config), torch.Generator().manual_seed(seed)
    count = len(pool.canvases)
    partners = augmenter.mosaic_partners(count, count, generator)
    return augmenter(pool, torch.cat([torch.arange(count)[:, None], partners], 1), generator)


def as_pool(batch: Batch) -> ImagePool:
    canvases = (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    counts = (batch.labels >= 0).sum(1)
    return ImagePool(canvases, batch.boxes, batch.labels, counts, whole(len(canvases)))


def assert_unchanged(batch: Batch, pool: ImagePool) -> None:
    places = batch.labels.shape[1]
    assert torch.equal(as_pool(batch).canvases, pool.canvases)
    assert torch.equal(batch.labels, pool.labels[:, :places])
    assert (pool.labels[:, places:] < 0).all()
    torch.testing.assert_close(batch.boxes, pool.boxes[:, :places], atol=1e-4, rtol=0)


@given(pools(), AUGMENTATIONS, SEEDS)
def test_augmented_boxes_stay_inside_and_keep_known_labels(
    pool: ImagePool, config: AugmentConfig, seed: int
) -> None:
    batch = augment(pool, config, seed)
    assert ((batch.images >= 0) & (batch.images <= 1)).all()
    kept = batch.boxes[batch.labels >= 0]
    assert (kept >= -1e-3).all() and (kept <= torch.tensor([WIDTH, HEIGHT] * 2) + 1e-3).all()
    assert (kept[:, 2:] - kept[:, :2] >= MIN_SIDE - 1e-3).all()
    assert set(batch.labels.unique().tolist()) <= {-1, *pool.labels.unique().tolist()}


@given(pools(), SEEDS)
def test_labels_go_with_their_boxes(pool: ImagePool, seed: int) -> None:
    """In upright moves, an object's box is its own, scaled and shifted by the image's numbers."""
    config = AugmentConfig(**{**NOTHING, "scale": (0.5, 0.9), "translate": 0.02})
    batch = augment(pool, config, seed)
    for index, (boxes, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
        own = dict(zip(pool.labels[index].tolist(), pool.boxes[index], strict=True))
        factors = [
            (box[2:] - box[:2]) / (own[label][2:] - own[label][:2])
            for box, label in zip(boxes, labels.tolist(), strict=True)
            if label >= 0
        ]
        for factor in factors:
            torch.testing.assert_close(factor, factors[0][:1].expand(2), atol=1e-2, rtol=0)


@given(pools(), SEEDS)
def test_settings_of_nothing_change_nothing(pool: ImagePool, seed: int) -> None:
    assert_unchanged(augment(pool, AugmentConfig(**NOTHING), seed), pool)


@given(pools(), st.sampled_from([("fliplr",), ("flipud",), ("fliplr", "flipud")]))
def test_a_flip_of_a_flip_is_the_image(pool: ImagePool, keys: tuple[str, ...]) -> None:
    config = AugmentConfig(**{**NOTHING, **dict.fromkeys(keys, 1.0)})
    assert_unchanged(augment(as_pool(augment(pool, config)), config), pool)


# annotations

IMAGE_SIDES = st.integers(1, 90)


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Images with different boxes inside them."""
    made = []
    for index in range(draw(st.integers(1, 3))):
        size = draw(IMAGE_SIDES), draw(IMAGE_SIDES)
        rows = draw(st.lists(boxes_inside(*size), max_size=4, unique=True))
        names = draw(st.lists(st.sampled_from(NAMES), min_size=len(rows), max_size=len(rows)))
        boxes = [(name, *row) for name, row in zip(names, rows, strict=True)]
        made.append(Item(f"{index}.png", size, boxes))
    return made


@pytest.mark.parametrize("write", [write_voc, write_coco, write_yolo])
@settings(max_examples=25)
@given(items())
def test_readers_return_the_boxes_that_were_written(write: Callable, items: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), items)
        kind = write.__name__.removeprefix("write_")
        data = DataConfig(format=kind, root=folder, classes=list(NAMES))
        split = load_dataset(data, "train", (32, 32), progress=False)
    assert set(split.report.counts) <= {"image identical to another"}
    for item, sample in zip(items, split.samples, strict=True):
        assert (sample.width, sample.height) == item.size
        assert [NAMES[label] for label in sample.labels] == [name for name, *_ in item.boxes]
        written = np.array([box for _, *box in item.boxes]).reshape(-1, 4)
        np.testing.assert_allclose(sample.boxes, written, atol=1e-4)


# average precision

SIDE = 200
SCORES = st.integers(1, 99).map(lambda percent: percent / 100)  # equal ones among them


@st.composite
def labeled(draw: st.DrawFn, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes `(n, 4)` and labels `(n,)`."""
    rows = draw(st.lists(boxes_inside(SIDE, SIDE), min_size=least, max_size=5, unique=True))
    labels = draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    return np.array(rows, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def sample_of(boxes: np.ndarray, labels: np.ndarray) -> Sample:
    flags = np.zeros(len(labels), np.bool_)
    return Sample(Path("a.png"), SIDE, SIDE, boxes, labels, flags, flags)


def found(boxes: np.ndarray, scores: Sequence[float], labels: np.ndarray) -> Detections:
    """Detections, sorted by score."""
    values = np.array(scores, np.float32)
    order = np.argsort(-values, kind="stable")
    return Detections(boxes[order], values[order], labels[order], NAMES, SIDE, SIDE)


@st.composite
def detected(draw: st.DrawFn, sample: Sample) -> Detections:
    """Some of the objects, moved a little or not, and others."""
    boxes, labels = draw(labeled())
    picked = [index for index in range(len(sample.labels)) if draw(st.booleans())]
    shift = draw(st.integers(0, 20))
    boxes = np.concatenate([sample.boxes[picked] + shift, boxes])
    labels = np.concatenate([sample.labels[picked], labels])
    return found(boxes, [draw(SCORES) for _ in labels], labels)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Sample], list[Detections]]:
    samples = [sample_of(*draw(labeled(least=1))) for _ in range(draw(st.integers(1, 3)))]
    return samples, [draw(detected(sample)) for sample in samples]


def precisions(samples: list[Sample], detections: list[Detections]) -> list[float]:
    """All kinds of AP."""
    metrics = evaluate(samples, detections, NAMES)
    per_class = [
        (each.ap50, each.ap50_95, each.voc_ap50, each.voc_ap50_11point)
        for each in metrics.per_class.values()
        if each.objects
    ]
    means = (metrics.map50, metrics.map50_95, metrics.map75, metrics.voc_ap50)
    return [value for row in (means, *per_class) for value in row]


@given(st.lists(labeled(least=1), min_size=1, max_size=3), st.lists(SCORES, min_size=15))
def test_perfect_detections_have_ap_1_and_none_have_0(objects: list, scores: list) -> None:
    samples = [sample_of(*rows) for rows in objects]
    perfect = [found(rows[0], scores[: len(rows[1])], rows[1]) for rows in objects]
    assert precisions(samples, perfect) == pytest.approx([1] * len(precisions(samples, perfect)))
    nothing = found(np.zeros((0, 4), np.float32), [], np.zeros(0, np.int64))
    assert not any(precisions(samples, [nothing] * len(samples)))


@given(cases(), st.integers(0, 2), SCORES)
def test_a_false_detection_never_raises_ap(case: tuple, label: int, score: float) -> None:
    samples, detections = case
    before = precisions(samples, detections)
    first = detections[0]
    wrong = found(
        np.concatenate([np.array([[-50, -50, -10, -10]], np.float32), first.boxes]),
        [score, *first.scores.tolist()],
        np.concatenate([[label], first.labels]),
    )
    after = precisions(samples, [wrong, *detections[1:]])
    assert all(new <= old + 1e-12 for new, old in zip(after, before, strict=True))


def reference(samples: list[Sample], detections: list[Detections]) -> list[float]:
    """AP50-95, AP50, AP75, for small, medium and large objects, and AR100 of pycocotools."""
    truth, results = COCO(), []
    annotations = []
    for image, (sample, answer) in enumerate(zip(samples, detections, strict=True), 1):
        for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
            entry = {"image_id": image, "category_id": label, "bbox": xywh(box), "iscrowd": 0}
            area = (box[2] - box[0]) * (box[3] - box[1])
            annotations.append({**entry, "id": len(annotations) + 1, "area": area})
        for index, box in enumerate(answer.boxes.tolist()):
            entry = {"image_id": image, "category_id": int(answer.labels[index])}
            results.append({**entry, "bbox": xywh(box), "score": float(answer.scores[index])})
    images = [{"id": index + 1} for index in range(len(samples))]
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [*evaluator.stats[:6], evaluator.stats[8]]


def xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


@settings(max_examples=40)
@given(cases())
def test_ap_is_that_of_pycocotools(case: tuple) -> None:
    samples, detections = case
    if not any(len(each.labels) for each in detections):
        return  # `loadRes` accepts no empty list
    metrics = evaluate(samples, detections, NAMES)
    ours = (
        *(metrics.map50_95, metrics.map50, metrics.map75),
        *(metrics.map_small, metrics.map_medium, metrics.map_large, metrics.ar100),
    )
    assert np.nan_to_num(ours, nan=-1).tolist() == pytest.approx(reference(samples, detections))
