"""`load_dataset`: one function for every dataset format."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.core.errors import UserError, counted
from utils.core.schema import DataConfig
from utils.data.dataset import DetectionDataset
from utils.data.layout import resolve
from utils.data.readers import coco, shapes, voc, yolo
from utils.data.readers.base import Reader, SplitContents, class_index
from utils.data.splitting import divide

READERS: dict[str, Reader] = {
    "shapes": shapes.read,
    "voc": voc.read,
    "coco": coco.read,
    "yolo": yolo.read,
}


def load_dataset(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> DetectionDataset:
    """Read one split of a dataset; images are not decoded before `DetectionDataset.prepare`.

    Args:
        data: format, folder, splits, classes and cache.
        split: `train`, `val` and `test` stand for the splits that `data` names so; any other name
            is that of a split in the dataset.
        input_size: (height, width) that images are letterboxed to, in pixels; synthetic images
            (`shapes`) are drawn at this size.
        class_names: class names of a trained network, which override those of the dataset.
        workers: threads that decode images.
        progress: show progress bars.

    Raises:
        UserError: the data is missing, the split or a class is unknown, or no image is usable.
    """
    data, notes = resolve(data)
    # numbers mean what the dataset's own list says, whatever the network's order is
    numbers_own = data.format == "yolo" and data.classes is None and yolo.lists_classes(data)
    if class_names is not None and not numbers_own:
        data = data.model_copy(update={"classes": list(class_names)})
    contents = _read(data, split, input_size, progress)
    if class_names is not None:
        contents = renumber(contents, tuple(class_names), data.root)
    report = contents.report
    if not contents.samples:
        raise UserError(
            f"data: no usable image in split '{split}' of {data.root or '.'}: "
            f"{report.reasons() or 'it lists none'}"
        )
    report.summarize(contents.samples, contents.class_names)
    dataset = DetectionDataset(
        contents.samples,
        input_size,
        cache=data.cache,
        cache_gb=data.cache_gb,
        workers=workers,
        report=report,
        class_names=contents.class_names,
        read_timeout=data.read_timeout,
    )
    dataset.notices += notes
    return dataset


def _read(
    data: DataConfig, split: str, input_size: tuple[int, int], progress: bool
) -> SplitContents:
    """Read a split; `train` and `val` may be parts of one in the dataset, if it has enough images.

    Raises:
        UserError: the data cannot be read, or is too little to divide.
    """
    names = {"train": data.train, "val": data.val, "test": data.test or "test"}
    source = names.get(split, split)
    contents = READERS[data.format](data, source, input_size, progress)
    if data.train != data.val or data.val_share is None or split not in ("train", "val"):
        return contents
    parts = divide(contents.samples, data.val_share, data.split_seed)
    chosen = parts[0] if split == "train" else parts[1]
    if contents.samples and not chosen:
        raise UserError(
            f"data.root={data.root}: {counted(len(contents.samples), 'images')}: too few to divide "
            f"with data.val_share={data.val_share:g}"
        )
    return contents._replace(samples=[contents.samples[index] for index in chosen])


def renumber(contents: SplitContents, class_names: tuple[str, ...], root: str) -> SplitContents:
    """The same labels as indices into other names.

    Raises:
        UserError: a class is not among them.
    """
    if contents.class_names == class_names:
        return contents
    used = {int(label) for sample in contents.samples for label in sample.labels}
    numbers = np.zeros(len(contents.class_names), np.int64)
    for label in used:
        numbers[label] = class_index(contents.class_names[label], class_names, root)
    samples = [replace(sample, labels=numbers[sample.labels]) for sample in contents.samples]
    return SplitContents(samples, class_names, contents.report)
