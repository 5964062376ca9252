"""The splits of an experiment: read, checked, decoded into their caches, and reported."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.core import distributed
from utils.core.schema import Config
from utils.data.dataset import DetectionDataset
from utils.data.duplicates import find_leaks
from utils.data.loading import load_dataset


@dataclass(frozen=True)
class Datasets:
    """The splits that an experiment uses.

    Attributes:
        train: the training split.
        val: the validation split.
        test: the test split, if `data.test` names one.
    """

    train: DetectionDataset
    val: DetectionDataset
    test: DetectionDataset | None = None

    @property
    def final(self) -> DetectionDataset:
        """The split that a finished run is scored on."""
        return self.val if self.test is None else self.test


def open_datasets(config: Config, class_names: Sequence[str] | None = None) -> Datasets:
    """Open the splits with `open_dataset`, and print a note if they share images."""
    train = open_dataset(config, "train", class_names)
    if not train.count_objects().any():
        print(f"note: nothing to learn: no object in {len(train)} training images")
    val = open_dataset(config, "val", class_names, told=train.notices)
    _note_shared(train, val, "validation images that are also training images")
    if config.data.test is None:
        return Datasets(train, val)
    test = open_dataset(config, "test", class_names, told=train.notices)
    _note_shared(train, test, "test images that are also training images")
    _note_shared(val, test, "test images that are also validation images")
    return Datasets(train, val, test)


def _note_shared(first: DetectionDataset, second: DetectionDataset, title: str) -> None:
    shared = find_leaks(first.samples, second.samples)
    if shared:
        path, copy = shared[0]
        print(f"note: {title}: {len(shared)}, e.g. {copy} is {path}")


def open_dataset(
    config: Config,
    split: str,
    class_names: Sequence[str] | None = None,
    told: Sequence[str] = (),
) -> DetectionDataset:
    """Read and check a split, decode it into the configured cache, and print a report.

    Args:
        config: `data`, `input_size` and `train.workers` are read.
        split: `train`, `val`, or another split of the dataset.
        class_names: class names of a trained network; they take precedence over the dataset's.
        told: lines about the dataset that need not be said again.

    Raises:
        UserError: the data is missing, the split or a class is unknown, or no image is usable.
    """
    dataset = load_dataset(config.data, split, config.input_size, class_names, config.train.workers)
    with distributed.main_process_first():
        dataset.prepare()
    title, *details = dataset.report.lines()
    notices = [line for line in dataset.notices if line not in told]
    print("\n".join([*notices, f"{split}: {title}", *details]))
    return dataset
