"""One entry to every data format: `load_split`."""

from dataclasses import dataclass

from utils.core.errors import UserError
from utils.core.schema import Data
from utils.data.checks import Report
from utils.data.readers import coco, shapes, voc, yolo
from utils.data.sample import Sample


@dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        records: its images, in the order of the dataset.
        names: the class list; `Record.labels` index it.
        report: what was read, mended and left out.
    """

    samples: list[Sample]
    names: tuple[str, ...]
    report: Report


def load_dataset(data: Data, split: str, size: tuple[int, int] | None = None, progress: bool = True) -> Split:
    """Read one split of the dataset that `data` describes.

    Args:
        split: `train` and `val` mean `data.train` and `data.val`; any other name is taken as the format names splits.
        size: (height, width) in pixels that drawn images (`shapes`) are made in; others ignore it.

    Raises:
        UserError: data missing, unknown split or class, or no usable picture.
    """
    part = {"train": data.train, "val": data.val}.get(split, split)
    if data.format == "shapes":
        samples, names, report = shapes.read(data, part, size or shapes.SIZE)
    else:
        reader = {"voc": voc, "coco": coco, "yolo": yolo}[data.format]
        samples, names, report = reader.read(data, part, progress)
    if not samples:
        reasons = "; ".join(
            f"{count} x {rule}, e.g. {report.examples[rule][0]}" for rule, count in report.counts.items()
        )
        raise UserError(f"data: no usable image in split '{part}' of {data.root or '.'}: {reasons or 'it lists none'}")
    report.summarize(samples, names)
    return Split(samples, names, report)
