"""One entry to every data format: `load_split`."""

from dataclasses import dataclass

from utils.data import coco, shapes, voc, yolo_txt
from utils.data.check import Report
from utils.data.record import Record
from utils.errors import UserError
from utils.schema import Data


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        records: its pictures, in the order of the data set.
        names: the class list; `Record.labels` index it.
        report: what was read, mended and left out.
    """

    records: list[Record]
    names: tuple[str, ...]
    report: Report


def load_split(data: Data, split: str, size: tuple[int, int] | None = None, progress: bool = True) -> Split:
    """Read one split of the data set that `data` describes.

    Args:
        split: `train` and `val` mean `data.train` and `data.val`; any other name is taken as the format names splits.
        size: (height, width) in pixels that drawn pictures (`shapes`) are made in; others ignore it.

    Raises:
        UserError: data missing, unknown split or class, or no usable picture.
    """
    part = {"train": data.train, "val": data.val}.get(split, split)
    if data.format == "shapes":
        records, names, report = shapes.read(data, part, size or shapes.SIZE)
    else:
        reader = {"voc": voc, "coco": coco, "yolo": yolo_txt}[data.format]
        records, names, report = reader.read(data, part, progress)
    if not records:
        reasons = "; ".join(
            f"{count} x {rule}, e.g. {report.examples[rule][0]}" for rule, count in report.counts.items()
        )
        raise UserError(
            f"data: no usable picture in split '{part}' of {data.root or '.'}: {reasons or 'it lists none'}"
        )
    report.summarise(records, names)
    return Split(records, names, report)
