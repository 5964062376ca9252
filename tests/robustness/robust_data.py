"""A dataset of three images in every format, of which a case damages one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from dataset_files import Item, write_coco, write_voc, write_yolo

NAMES = ("circle", "cross", "ring", "square", "star", "triangle")  # what the weights know
BOX = ("cross", 10, 11, 20, 33)  # of the image that a case damages
ITEMS = (
    Item("a.jpg", (60, 40), [("circle", 3, 4, 20, 30), ("ring", 0, 0, 60, 40)]),
    Item("b.png", (32, 64), [BOX]),
    Item("c.png", (50, 50)),
)
WRITERS = {
    "voc": write_voc,
    "coco": partial(write_coco, ids=range(6), names=NAMES),
    "yolo": partial(write_yolo, names=NAMES),
}
COUNT = re.compile(r"^ +(\d+) x (.+?)  ", re.MULTILINE)


@dataclass(frozen=True)
class Read:
    """What `eval.py` made of a dataset.

    Attributes:
        counts: rule -> number of cases, as the report states them.
        objects: name of the image -> its objects, (class, x1, y1, x2, y2) in pixels.
        output: what it printed.
    """

    counts: dict[str, int]
    objects: dict[str, list[tuple]]
    output: str


def assert_read(read: Read, counts: dict[str, int], boxes: Sequence[tuple] | None) -> None:
    """The report states `counts`, b.png has `boxes` (None: is skipped), the others are intact."""
    assert read.counts == counts, read.output
    expected = {item.name: list(item.boxes) for item in ITEMS}
    expected["b.png"] = list(boxes or ())
    if boxes is None:
        del expected["b.png"]
    assert read.objects == expected
