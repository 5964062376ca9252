"""All splits of a dataset at once; `utils.data.loading` reads the one that a training asks for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nets.yolo.box_coder import STRIDES
from utils.core.errors import UserError
from utils.core.inputs import is_outage
from utils.core.schema import Config, DataConfig
from utils.data.dataset_report import DatasetReport
from utils.data.layout import LIST_SPLITS, resolve
from utils.data.loading import READERS, renumber
from utils.data.readers.base import SplitContents
from utils.data.readers.folder_tree import base_name, role_of
from utils.data.sample import Sample

UNION = "trainval"  # Pascal VOC's list of the images of both train and val


@dataclass
class Inventory:
    """A dataset.

    Attributes:
        data: its configuration, with a format that is not `auto`.
        input_size: (height, width) of the network's input, in pixels.
        heads: number of heads of the network.
        class_names: what the labels index, in all splits.
        splits: name -> its images and the report of what was wrong with them.
        failures: name of a split that cannot be read -> why, and the report of what was read of it.
        notes: what was recognized.
    """

    data: DataConfig
    input_size: tuple[int, int]
    heads: int = 2
    class_names: tuple[str, ...] = ()
    splits: dict[str, SplitContents] = field(default_factory=dict)
    failures: dict[str, tuple[str, DatasetReport]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the network's maps, in pixels, the coarsest first."""
        return STRIDES[: self.heads]

    @property
    def small(self) -> int:
        """Half a cell of the finest map, pixels: smaller objects are hard to detect."""
        return self.strides[-1] // 2

    def samples(self) -> list[Sample]:
        """The images of all splits, in order."""
        return [sample for contents in self.splits.values() for sample in contents.samples]


def read_inventory(config: Config, thorough: bool = False, progress: bool = True) -> Inventory:
    """Read all splits.

    Args:
        config: `data`, `input_size` and `model.heads` are read.
        thorough: find all problems instead of ending at the first that ends a training.
        progress: show progress bars.

    Raises:
        UserError: there is no dataset; or, unless `thorough`, a split cannot be read.
    """
    data, notes = resolve(config.data)
    inventory = Inventory(data, config.input_size, config.model.heads, notes=notes)
    for name in split_names(data):
        report = DatasetReport(thorough=thorough)
        if data.train in inventory.failures:  # then it cannot tell the names of the classes
            data = data.model_copy(update={"train": name})
        try:
            contents = READERS[data.format](data, name, config.input_size, progress, report)
        except UserError as error:
            if not thorough or is_outage(error):
                raise
            inventory.failures[name] = str(error), report
            continue
        inventory.splits[name] = contents
    _agree_on_classes(inventory)
    return inventory


def _agree_on_classes(inventory: Inventory) -> None:
    """Let the labels of all splits index the same names."""
    inventory.class_names = join_names([split.class_names for split in inventory.splits.values()])
    for name, contents in inventory.splits.items():
        inventory.splits[name] = renumber(contents, inventory.class_names, inventory.data.root)
        contents.report.summarize(inventory.splits[name].samples, inventory.class_names)


def join_names(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Every name once, in the order of its first appearance."""
    return tuple(dict.fromkeys(name for names in lists for name in names))


def split_names(data: DataConfig) -> list[str]:
    """The splits of a resolved dataset: those that it is trained and validated on, then others.

    Lists that are no splits, such as Pascal VOC's lists of single classes, are left out. So is
    `trainval` if its parts are there; and if the training split has a name of its own, which may
    stand for several, others than test splits.
    """
    if data.format == "shapes":
        return list(dict.fromkeys((data.train, data.val)))
    listed = LIST_SPLITS[data.format](data)
    roles = {name: role_of(name) for name in listed}
    has_parts = any(role in ("train", "val") for role in roles.values())
    usual = [name for name in listed if roles[name] or (base_name(name) == UNION and not has_parts)]
    if not role_of(data.train):
        usual = [name for name in usual if roles[name] == "test"]
    wanted = [
        name
        for key, name in (("train", data.train), ("val", data.val))
        if not listed or name in listed or name != DataConfig.model_fields[key].default
    ]
    return list(dict.fromkeys([*wanted, *usual]))
