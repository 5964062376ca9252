"""The splits of an experiment, read, checked and decoded into their caches; what was found is printed."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.core import distributed
from utils.core.schema import Config
from utils.data.dataset import DetectionDataset
from utils.data.duplicates import find_leaks
from utils.data.loading import load_dataset


@dataclass(frozen=True)
class Datasets:
    """The training and the validation split of an experiment."""

    train: DetectionDataset
    val: DetectionDataset


def open_datasets(config: Config, class_names: Sequence[str] | None = None) -> Datasets:
    """Both splits as `open_dataset` returns them; images that are in both are told to the user."""
    datasets = Datasets(
        open_dataset(config, "train", class_names), open_dataset(config, "val", class_names)
    )
    shared = find_leaks(datasets.train.samples, datasets.val.samples)
    if shared:
        first, second = shared[0]
        print(
            f"note: {len(shared)} validation images are also training images, e.g. {second} is {first}"
        )
    return datasets


def open_dataset(
    config: Config, split: str, class_names: Sequence[str] | None = None
) -> DetectionDataset:
    """A split, checked and decoded into the cache that the configuration asks for; prints the report.

    Args:
        config: `data`, `input_size` and `train.workers` are read.
        split: `train`, `val`, or a split as the dataset names it.
        class_names: those of a trained network, which the data's own must not override.

    Raises:
        UserError: data missing, unknown split or class, or no usable image.
    """
    dataset = load_dataset(config.data, split, config.input_size, class_names, config.train.workers)
    with distributed.main_process_first():
        dataset.prepare()
    title, *details = dataset.report.lines()
    print("\n".join([f"{split}: {title}", *details, *dataset.notices]))
    return dataset
