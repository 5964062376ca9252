"""Evaluation: the metrics beside pycocotools' own loop, and a detector on images beside its network alone."""

import contextlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section, per_second, ratio_of
from utils.core.timing import Stat, interleave, timed
from utils.data.sample import Sample
from utils.engine.evaluation import evaluate_detector
from utils.metrics import evaluate

PICTURES, FULL, QUICK = 500, 5000, 10
CLASSES = 80
OBJECTS, COPIES, STRAYS = (
    7,
    3,
    9,
)  # of an image; a detection is a copy of an object, or astray: 30 of them
WIDTH, HEIGHT = 640, 480


def section(bench: Bench) -> Section:
    """Measure."""
    count = FULL if bench.settings.full else QUICK if bench.settings.quick else PICTURES
    samples, found = synthetic_set(count)
    truth, results = coco_truth(samples), coco_results(found)
    detector = bench.detector()
    clocks = {
        "cocoeval": timed(lambda: coco_precision(truth, results)),
        "metrics": timed(lambda: evaluate(samples, found, found[0].names)),
        "detector": timed(partial(evaluate_detector, detector, bench.val_set, progress=False)),
        "network": timed(partial(_network, bench, detector)),
    }
    times = interleave(clocks, bench.settings.effort, "evaluation")
    shown = len(bench.val_set)
    rows = [
        Row("evaluation.cocoeval", "pycocotools' COCOeval", Stat.of(times["cocoeval"] / 1000), "s"),
        Row(
            "evaluation.metrics",
            "all metrics (COCO, VOC, F1, confusion)",
            Stat.of(times["metrics"] / 1000),
            "s",
            ratio_of(times["cocoeval"], times["metrics"]),
            "COCOeval",
        ),
        Row(
            "evaluation.network", "network alone", per_second(times["network"], shown), "pictures/s"
        ),
        Row(
            "evaluation.detector",
            "detector and metrics",
            per_second(times["detector"], shown),
            "pictures/s",
            ratio_of(times["network"], times["detector"]),
            "network",
        ),
    ]
    notes = [
        f"metrics: {count:,} images with {OBJECTS} objects and {OBJECTS * COPIES + STRAYS} detections of {CLASSES} "
        "classes; COCOeval's time is without its building of the ground truth",
        f"detector: {shown} validation images in batches of {bench.config.eval.batch_size}, {detector.precision}",
    ]
    return Section(
        "evaluation", "seconds for the metrics, images a second for the whole", rows, notes
    )


def _network(bench: Bench, detector: Detector) -> None:
    size, pictures = bench.config.eval.batch_size, bench.val_set
    for start in range(0, len(pictures), size):
        canvases = pictures.canvases(range(start, min(start + size, len(pictures))))
        for part in detector.backend(torch.from_numpy(canvases)):
            part.cpu()


def synthetic_set(count: int, seed: int = 0) -> tuple[list[Sample], list[Detections]]:
    """Images with objects, and detections: inaccurate copies of them and some astray."""
    rng = np.random.default_rng(seed)
    names = tuple(f"class {index}" for index in range(CLASSES))
    samples, found = [], []
    for index in range(count):
        boxes, labels = _boxes(rng, OBJECTS), rng.integers(CLASSES, size=OBJECTS)
        no = np.zeros(OBJECTS, np.bool_)
        samples.append(
            Sample(Path(f"{index}.jpg"), WIDTH, HEIGHT, boxes, labels, difficult=no, crowd=no)
        )
        copies = np.repeat(boxes, COPIES, 0)
        copies += rng.normal(0, 0.08, copies.shape) * np.tile(copies[:, 2:] - copies[:, :2], 2)
        every = np.concatenate([copies, _boxes(rng, STRAYS)]).astype(np.float32)
        classes = np.concatenate([np.repeat(labels, COPIES), rng.integers(CLASSES, size=STRAYS)])
        scores = rng.random(len(every)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        found.append(Detections(every[order], scores[order], classes[order], names, WIDTH, HEIGHT))
    return samples, found


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(12), np.log(240), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - size)
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def coco_truth(samples: Sequence[Sample]) -> COCO:
    """The objects as pycocotools wants them."""
    boxes = [
        (image, label, box) for image, sample in enumerate(samples) for label, box in _pairs(sample)
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": image, "width": WIDTH, "height": HEIGHT} for image in range(len(samples))
        ],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (image, label, (x1, y1, x2, y2)) in enumerate(boxes, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _pairs(picture: Sample | Detections) -> list[tuple[int, list[float]]]:
    return list(zip(picture.labels.tolist(), picture.boxes.tolist(), strict=True))


def coco_results(found: Sequence[Detections]) -> np.ndarray:
    """The detections as pycocotools wants them: `(n, 7)`, image, x, y, width, height, score, class."""
    parts = [
        np.column_stack(
            [
                np.full(len(one), image),
                one.boxes[:, :2],
                one.boxes[:, 2:] - one.boxes[:, :2],
                one.scores,
                one.labels,
            ]
        )
        for image, one in enumerate(found)
    ]
    return np.concatenate(parts)


def coco_precision(truth: COCO, results: np.ndarray) -> float:
    """COCO AP as pycocotools documents it."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0])
