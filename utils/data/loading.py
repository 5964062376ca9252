"""One entry to every dataset format: `load_dataset`."""

from collections.abc import Sequence

from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.checks import Report
from utils.data.dataset import DetectionDataset
from utils.data.readers import coco, shapes, voc, yolo

READERS = {"shapes": shapes, "voc": voc, "coco": coco, "yolo": yolo}


def load_dataset(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> DetectionDataset:
    """Read one split of the dataset that `data` describes; nothing is decoded before `DetectionDataset.prepare`.

    Args:
        data: format, folder, splits, classes and cache.
        split: `train` and `val` mean `data.train` and `data.val`; any other name is taken as the format names splits.
        input_size: (height, width) that images are letterboxed to, pixels; drawn images (`shapes`) are made in it.
        class_names: those of a trained network, which the data's own must not override.
        workers: threads that decode images.
        progress: show progress bars.

    Raises:
        UserError: data missing, unknown split or class, or no usable image.
    """
    if class_names is not None:
        data = data.model_copy(update={"classes": list(class_names)})
    part = {"train": data.train, "val": data.val}.get(split, split)
    if data.format == "shapes":
        samples, names, report = shapes.read(data, part, input_size)
    else:
        samples, names, report = READERS[data.format].read(data, part, progress)
    if not samples:
        raise UserError(
            f"data: no usable image in split '{part}' of {data.root or '.'}: {_reasons(report)}"
        )
    report.summarize(samples, names)
    return DetectionDataset(
        samples, input_size, data.cache, data.cache_gb, workers, report=report, class_names=names
    )


def _reasons(report: Report) -> str:
    counted = [
        f"{count} x {rule}, e.g. {report.examples[rule][0]}"
        for rule, count in report.counts.items()
    ]
    return "; ".join(counted) or "it lists none"
