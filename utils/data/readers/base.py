"""What the readers of the dataset formats have in common."""

from pathlib import Path
from typing import NamedTuple, Protocol

from utils.core.class_names import read_lines
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import find_first, is_folder
from utils.core.schema import DataConfig
from utils.data.dataset_report import DatasetReport
from utils.data.sample import Sample


class SplitContents(NamedTuple):
    """One split of a dataset, as a reader returns it.

    Attributes:
        samples: images with their labels, in the order of the split.
        class_names: what the labels index.
        report: problems of the files.
    """

    samples: list[Sample]
    class_names: tuple[str, ...]
    report: DatasetReport


class Reader(Protocol):
    """Reads one split of a dataset in some format; every format has a module with such a `read`."""

    def __call__(
        self,
        data: DataConfig,
        split: str,
        input_size: tuple[int, int],
        progress: bool = True,
        report: DatasetReport | None = None,
    ) -> SplitContents:
        """Read a split.

        Args:
            data: location of the dataset; `data.classes`, if given, overrides its class names.
            split: name of the split in the dataset.
            input_size: (height, width) to draw synthetic images at, in pixels; image files keep
                their size.
            progress: show progress bars.
            report: report that counts the problems; default: a new one.

        Returns:
            The samples, the class names and the report.

        Raises:
            UserError: the data is missing or unreadable, or the split or a class is unknown.
        """


def class_index(name: str, class_names: tuple[str, ...], source: str | Path) -> int:
    """Return the index of the class `name`, which occurs in `source`.

    Raises:
        UserError: it is not one of `class_names`.
    """
    if name not in class_names:
        raise UserError(
            f"{source}: class '{shorten(name)}' is not in the class list"
            f"{nearest(name, class_names)}"
        )
    return class_names.index(name)


def require_folder(path: Path, title: str = "data") -> None:
    """Check that a folder of the dataset exists.

    Raises:
        UserError: there is no such folder.
    """
    if not is_folder(path):
        found = "something else" if find_first([path]) else "none"
        raise UserError(f"{title}: expected the folder {path}, found {found}")


def read_image_list(path: Path, report: DatasetReport) -> list[str]:
    """The lines of a list of images.

    Raises:
        UserError: it cannot be read, or is empty.
    """
    lines = read_lines(path, report.note_encoding)
    if not lines:
        raise UserError(f"{path}: is empty: expected one image per line")
    return lines
