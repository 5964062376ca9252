"""After the network: maps to boxes, and 10,000 candidates to detections, beside a plain loop over the classes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from nets.ops.nms import non_max_suppression
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section, Target, ratio_of
from utils.core.schema import EvalConfig, PredictConfig
from utils.core.timing import Clock, Stat, block_timed, interleave

CANDIDATES = 10_000  # of an image, each above the score limit in one class
BATCH, QUICK_BATCH = 32, 2
BUDGET = 5.0  # ms for an image's candidates, on a CPU
OBJECTS, SIDE, CLASSES = 40, 416.0, 20


def section(bench: Bench) -> Section:
    """Measure."""
    many = QUICK_BATCH if bench.settings.quick else BATCH
    clocks, titles = _clocks(bench, many)
    times = interleave(clocks, bench.settings.effort, "post")
    rows = [_row(key, title, times, bench.device) for key, title in titles.items()]
    notes = [
        f"{CANDIDATES:,} candidates of {CLASSES} classes around {OBJECTS} objects; plain: without box voting",
        "loop: torchvision's nms of each class's candidates in turn, then the best of all classes",
    ]
    return Section("post", f"milliseconds an image, {bench.device.type}", rows, notes)


def _clocks(bench: Bench, pictures: int) -> tuple[dict[str, Clock], dict[str, str]]:
    shown, counted, device = bench.config.predict, bench.config.eval, bench.device
    boxes, scores = (part.to(device) for part in candidates(CANDIDATES))
    coder = bench.detector(precision="fp32").network.coder
    maps = raw_maps(3 * (5 + len(bench.train_split.class_names)), bench.config.input_size, device)
    many = [
        one.expand(pictures, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for one in maps
    ]

    def selecting(
        limits: EvalConfig | PredictConfig, vote_iou: float, count: int = 1
    ) -> Callable[[], object]:
        some = boxes.expand(count, -1, -1), scores.expand(count, -1, -1)
        return partial(non_max_suppression, *some, limits.score, limits.nms_iou, limits.max_detections, vote_iou)

    loop = partial(loop_select, boxes, scores, shown.score, shown.nms_iou, shown.max_detections)
    calls: dict[str, tuple[str, Callable[[], object], int]] = {
        "loop": ("class by class in a loop", loop, 1),
        "select": ("select, as predict.* sets it", selecting(shown, shown.vote_iou), 1),
        "select_plain": ("select, plain", selecting(shown, 1.0), 1),
        "select_eval": ("select, as eval.* sets it", selecting(counted, counted.vote_iou), 1),
        "select_batch": (
            f"select, of {pictures} images",
            selecting(shown, shown.vote_iou, pictures),
            pictures,
        ),
        "decode": ("decode the maps", partial(coder, maps), 1),
        "decode_batch": (f"decode the maps, of {pictures} images", partial(coder, many), pictures),
    }
    made = {
        key: _each(block_timed(call, bench.block, device), count)
        for key, (_, call, count) in calls.items()
    }
    return made, {key: title for key, (title, _, _) in calls.items()}


def _each(clock: Clock, count: int) -> Clock:
    """Of a call on `count` images: milliseconds a picture."""
    return lambda: clock() / count


def _row(key: str, title: str, times: Mapping[str, np.ndarray], device: torch.device) -> Row:
    compared = key in ("select", "select_plain", "select_eval")
    budget = Target(BUDGET, at_least=False) if compared and device.type == "cpu" else None
    return Row(
        f"post.{key}",
        title,
        Stat.of(times[key]),
        "ms",
        ratio_of(times["loop"], times[key]) if compared else None,
        "loop" if compared else "",
        target=budget,
    )


def candidates(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes `(count, 4)`, xyxy in 416x416 pixels, around `OBJECTS` objects, and scores `(count, CLASSES)`.

    Of each box one class scores 0.3 to 1, the others less than 0.001.
    """
    draw = torch.Generator().manual_seed(seed)
    centers = torch.rand(OBJECTS, 2, generator=draw) * SIDE
    sizes = 20 + torch.rand(OBJECTS, 2, generator=draw) * 120
    classes = torch.randint(CLASSES, (OBJECTS,), generator=draw)
    own = torch.randint(OBJECTS, (count,), generator=draw)
    center = centers[own] + 0.15 * sizes[own] * torch.randn(count, 2, generator=draw)
    half = sizes[own] * (0.2 * torch.randn(count, 2, generator=draw)).exp() / 2
    scores = torch.rand(count, CLASSES, generator=draw) * 9e-4
    scores[torch.arange(count), classes[own]] = 0.3 + 0.7 * torch.rand(count, generator=draw)
    return torch.cat([center - half, center + half], 1), scores


def loop_select(
    boxes: Tensor, scores: Tensor, score: float, nms_iou: float, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same detections as `non_max_suppression` without voting, one class after the other."""
    parts: list[Sequence[Tensor]] = []
    for label in range(scores.shape[1]):
        above = scores[:, label] > score
        near, values = boxes[above], scores[above, label]
        keep = nms(near, values, nms_iou)
        parts.append((near[keep], values[keep], torch.full_like(keep, label)))
    found, values, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    order = values.argsort(descending=True)[:max_detections]
    return found[order], values[order], labels[order]


def raw_maps(channels: int, size: tuple[int, int], device: torch.device) -> list[Tensor]:
    """Random maps of one image, as the network gives them: strides 32 and 16."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, channels, size[0] // stride, size[1] // stride) for stride in (32, 16)]
    return [
        torch.randn(shape, generator=draw).to(device, memory_format=torch.channels_last)
        for shape in shapes
    ]
