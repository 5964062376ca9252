"""Evaluation: the metrics against pycocotools' own loop, and a detector against its network."""

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
from utils.benchmark.results import Case, ResultTable
from utils.benchmark.session import BenchmarkSession
from utils.core.timing import timed
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.engine.evaluation import evaluate_detector
from utils.metrics import evaluate

CLASSES = 80
OBJECTS = 7  # per image
COPIES = 3  # inaccurate detections per object
STRAYS = 9  # detections elsewhere, per image
WIDTH = 640
HEIGHT = 480


def evaluation_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    count = 5000 if session.options.full else session.scaled(500, quick=10)
    samples, detections = synthetic_set(count)
    truth = coco_truth(samples)
    detector = session.detector()
    dataset = session.val_set
    cocoeval = timed(partial(coco_precision, truth, coco_rows(detections)))
    metrics = timed(partial(evaluate, samples, detections, detections[0].names))
    network = timed(partial(_run_network, detector, dataset))
    whole = timed(partial(evaluate_detector, detector, dataset, progress=False))
    what = "all metrics (COCO, VOC, F1, confusion)"
    cases = [
        Case("cocoeval", "pycocotools' COCOeval", cocoeval, unit="s"),
        Case("metrics", what, metrics, unit="s", over="cocoeval"),
        Case("network", "network alone", network, len(dataset)),
        Case("detector", "detector and metrics", whole, len(dataset), over="network"),
    ]
    rows, _ = session.measure("evaluation", cases)
    notes = [
        f"metrics: {count:,} images with {OBJECTS} objects and {OBJECTS * COPIES + STRAYS} "
        f"detections of {CLASSES} classes; COCOeval's time excludes building the ground truth",
        f"detector: {len(dataset)} validation images in batches of "
        f"{session.config.eval.batch_size}, {detector.precision}",
    ]
    title = "seconds for the metrics, images per second for the detector"
    return ResultTable("evaluation", title, rows, notes)


def _run_network(detector: Detector, dataset: DetectionDataset) -> None:
    indices = range(len(dataset))
    size = detector.config.eval.batch_size
    for start in range(0, len(dataset), size):
        canvases = dataset.canvases(indices[start : start + size])
        for part in detector.backend(torch.from_numpy(canvases)):
            part.cpu()


def synthetic_set(count: int, seed: int = 0) -> tuple[list[Sample], list[Detections]]:
    """Images with objects, and detections: inaccurate copies of the objects, and strays."""
    rng = np.random.default_rng(seed)
    names = tuple(f"class {index}" for index in range(CLASSES))
    no_flags = np.zeros(OBJECTS, np.bool_)
    samples, detections = [], []
    for image in range(count):
        boxes = _random_boxes(rng, OBJECTS)
        labels = rng.integers(CLASSES, size=OBJECTS)
        path = Path(f"{image}.jpg")
        samples.append(Sample(path, WIDTH, HEIGHT, boxes, labels, no_flags, no_flags))
        copies = np.repeat(boxes, COPIES, 0)
        copies += rng.normal(0, 0.08, copies.shape) * np.tile(copies[:, 2:] - copies[:, :2], 2)
        boxes = np.concatenate([copies, _random_boxes(rng, STRAYS)]).astype(np.float32)
        stray_labels = rng.integers(CLASSES, size=STRAYS)
        labels = np.concatenate([np.repeat(labels, COPIES), stray_labels])
        scores = rng.random(len(boxes)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        detections.append(
            Detections(boxes[order], scores[order], labels[order], names, WIDTH, HEIGHT)
        )
    return samples, detections


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(12), np.log(240), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - size)
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def coco_rows(images: Sequence[Sample | Detections]) -> np.ndarray:
    """Objects in pycocotools' format: `(n, 7)`, image, x, y, width, height, score, class."""
    rows = []
    for index, image in enumerate(images):
        corner, far_corner = np.split(image.boxes, 2, axis=1)
        scores = image.scores if isinstance(image, Detections) else np.ones(len(corner))
        indices = np.full(len(corner), index)
        rows.append(np.column_stack([indices, corner, far_corner - corner, scores, image.labels]))
    return np.concatenate(rows)


def coco_truth(samples: Sequence[Sample]) -> COCO:
    """The ground truth in pycocotools' format."""
    images = COCO()
    images.dataset = {
        "info": {},
        "images": [{"id": index} for index in range(len(samples))],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        images.createIndex()
        return images.loadRes(coco_rows(samples))


def coco_precision(truth: COCO, results: np.ndarray) -> float:
    """COCO AP as pycocotools documents it."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0])
