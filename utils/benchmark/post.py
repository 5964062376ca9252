"""Post-processing: maps to boxes, and candidates to detections against a loop over the classes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.ops import nms

from nets.ops.nms import non_max_suppression
from utils.benchmark.results import Case, ResultTable, Target
from utils.benchmark.session import BenchmarkSession
from utils.core.schema import EvalConfig, PredictConfig
from utils.core.timing import block_timed

CANDIDATES = 10_000  # per image, each above the score limit in one class
NMS_TARGET = 5.0  # ms for an image's candidates, on a CPU
OBJECTS = 40
SIDE = 416.0  # pixels
CLASSES = 20
COMPARED = ("select", "select_plain", "select_eval")  # with the loop


def post_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    images = session.scaled(32, quick=2)
    predict = session.config.predict
    boxes, scores = (tensor.to(session.device) for tensor in candidates(CANDIDATES))
    network = session.detector(precision="fp32").network
    image = torch.rand(1, 3, *session.config.input_size, device=session.device)
    with torch.no_grad():
        maps = network(image.to(memory_format=torch.channels_last))
    many_maps = [
        image_map.repeat(images, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        for image_map in maps
    ]
    target = Target(NMS_TARGET, at_least=False) if session.device.type == "cpu" else None

    def run_nms(limits: EvalConfig | PredictConfig, vote_iou: float, count: int = 1) -> None:
        many_boxes, many_scores = boxes.expand(count, -1, -1), scores.expand(count, -1, -1)
        non_max_suppression(
            many_boxes, many_scores, limits.score, limits.nms_iou, limits.max_detections, vote_iou
        )

    def case(key: str, what: str, call: Callable[[], object], count: int = 1) -> Case:
        clock = block_timed(call, session.block, session.device)
        over, bound = ("loop", target) if key in COMPARED else ("", None)
        return Case(key, what, clock, count, "ms", over, bound)

    loop = partial(nms_loop, boxes, scores, predict.score, predict.nms_iou, predict.max_detections)
    selected = partial(run_nms, predict, predict.vote_iou)
    evaluated = partial(run_nms, session.config.eval, session.config.eval.vote_iou)
    decode, decode_many = partial(network.coder, maps), partial(network.coder, many_maps)
    cases = [
        case("loop", "class by class in a loop", loop),
        case("select", "NMS, as predict.* sets it", selected),
        case("select_plain", "NMS, plain", partial(run_nms, predict, 1.0)),
        case("select_eval", "NMS, as eval.* sets it", evaluated),
        case("select_batch", f"NMS, {images} images", partial(selected, images), images),
        case("decode", "decode the maps", decode),
        case("decode_batch", f"decode the maps, {images} images", decode_many, images),
    ]
    rows, _ = session.measure("post", cases)
    notes = [
        f"{CANDIDATES:,} candidates of {CLASSES} classes around {OBJECTS} objects; "
        "plain: without box voting",
        "loop: torchvision's nms class by class, then the best detections of all classes",
    ]
    return ResultTable("post", f"milliseconds per image, {session.device.type}", rows, notes)


def candidates(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Candidates around `OBJECTS` objects, each of one class.

    Returns:
        Boxes `(count, 4)`, xyxy in 416x416 pixels, and scores `(count, CLASSES)`: 0.3 to 1 in the
        class of the object, less than 0.001 in the others.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(OBJECTS, 2, generator=generator) * SIDE
    sizes = 20 + torch.rand(OBJECTS, 2, generator=generator) * 120
    classes = torch.randint(CLASSES, (OBJECTS,), generator=generator)
    index = torch.randint(OBJECTS, (count,), generator=generator)
    center = centers[index] + 0.15 * sizes[index] * torch.randn(count, 2, generator=generator)
    half = sizes[index] * (0.2 * torch.randn(count, 2, generator=generator)).exp() / 2
    scores = torch.rand(count, CLASSES, generator=generator) * 9e-4
    scores[torch.arange(count), classes[index]] = 0.3 + 0.7 * torch.rand(count, generator=generator)
    return torch.cat([center - half, center + half], 1), scores


def nms_loop(
    boxes: Tensor, scores: Tensor, score: float, nms_iou: float, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of `non_max_suppression` without voting, computed class by class."""
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for label in range(scores.shape[1]):
        valid = scores[:, label] > score
        class_boxes, class_scores = boxes[valid], scores[valid, label]
        keep = nms(class_boxes, class_scores, nms_iou)
        kept.append((class_boxes[keep], class_scores[keep], torch.full_like(keep, label)))
    every_box, every_score, every_label = (torch.cat(parts) for parts in zip(*kept, strict=True))
    best = every_score.argsort(descending=True)[:max_detections]
    return every_box[best], every_score[best], every_label[best]
