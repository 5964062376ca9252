"""A page about a dataset: what to notice, numbers, plots, images. HTML that needs no network."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nets.inference.drawing import draw_ground_truth
from utils.core.errors import UserError
from utils.core.images import Letterbox
from utils.core.inputs import is_outage
from utils.data.sample import Sample
from utils.data.tools.check import summary
from utils.data.tools.inventory import Inventory
from utils.data.tools.statistics import Statistics, remarks
from utils.visualization import dataset_figures as figures
from utils.visualization.page import (
    TEMPLATES,
    EmbeddedImage,
    embed_photo,
    embed_png,
    template_environment,
)

PHOTOS = 12
PHOTO_SIDE = 640  # pixels at most
FILES_SHOWN = 20  # per kind of finding


def render_page(statistics: Statistics, command: str) -> str:
    """The page.

    Args:
        statistics: what it shows.
        command: the command line that makes it.
    """
    inventory = statistics.inventory
    context: dict[str, Any] = {
        "root": inventory.data.root or "drawn images",
        "format": inventory.data.format,
        "notes": inventory.notes,
        "remarks": remarks(statistics),
        "splits": {name: split.report for name, split in inventory.splits.items()},
        "class_names": inventory.class_names,
        "input_size": inventory.input_size,
        "anchors": statistics.anchors,
        "problems": statistics.problems,
        "summary": summary(statistics.problems),
        "files_shown": FILES_SHOWN,
        "figures": _figures(statistics),
        "photos": [_embed(split, sample, inventory) for split, sample in _chosen(inventory)],
        "command": command,
    }
    return template_environment(TEMPLATES).get_template("dataset.html").render(context)


def _figures(statistics: Statistics) -> dict[str, EmbeddedImage]:
    height, width = statistics.inventory.input_size
    many = len(statistics.inventory.class_names) > figures.MAX_CLASSES
    captions = {
        "class_balance": f"Objects per class{': the largest and the smallest' if many else ''}.",
        "box_sizes": (
            f"Every object as the network sees it, at {width}x{height}. Objects far below the line "
            f"of stride {statistics.inventory.strides[-1]} fill a fraction of a cell; an anchor "
            "should be near every cloud."
        ),
        "objects_per_image": "Objects per image.",
        "image_sizes": "Sizes and aspect ratios of the images.",
        "places": "Where objects lie: how many cover each place, all images stretched to a square.",
    }
    embedded = {}
    for name, caption in captions.items():
        data = getattr(figures, name)(statistics)
        embedded[name] = embed_png(data, caption.partition(":")[0], caption)
    return embedded


def _chosen(inventory: Inventory) -> Iterator[tuple[str, Sample]]:
    """Images to show: one for each class, the rarest first, then others spread over the dataset."""
    labeled = [
        (name, sample)
        for name, split in inventory.splits.items()
        for sample in split.samples
        if len(sample.labels)
    ]
    counts = np.zeros(len(inventory.class_names), np.int64)
    first: dict[int, int] = {}
    for index, (_, sample) in enumerate(labeled):
        counts += np.bincount(sample.labels, minlength=len(counts))
        for label in sample.labels.tolist():
            first.setdefault(label, index)
    rare = [first[label] for label in np.argsort(counts, kind="stable").tolist() if label in first]
    spread = np.linspace(0, len(labeled) - 1, min(PHOTOS, len(labeled))).astype(int).tolist()
    for index in list(dict.fromkeys([*rare[: PHOTOS // 2], *spread]))[:PHOTOS]:
        yield labeled[index]


def _embed(split: str, sample: Sample, inventory: Inventory) -> EmbeddedImage:
    name = f"{split}: {sample.path.name}, {sample.width}x{sample.height}"
    try:
        image = sample.read_image()
    except UserError as error:
        if is_outage(error):
            raise
        image = sample.gray_image()
        name = f"{name}: cannot be decoded"
    scale = min(1.0, PHOTO_SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    letterbox = Letterbox((sample.height, sample.width), size)
    boxes = letterbox.boxes_to_input(sample.boxes)
    drawn = draw_ground_truth(letterbox.apply(image), boxes, sample.labels, inventory.class_names)
    return embed_photo(drawn, sample.path.name, name)
