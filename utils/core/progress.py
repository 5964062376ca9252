"""Progress bars."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from utils.core.distributed import is_main_process


def progress_bar(
    items: Iterable[Any] | None = None, *, show: bool = True, leave: bool = False, **options: Any
) -> tqdm:
    """A `tqdm` bar, shown only by the main process and only on a terminal.

    Args:
        items: what to iterate over; None: the caller updates the bar.
        show: False hides the bar.
        leave: keep the finished bar on screen.
        options: `desc`, `total`, `unit` and the other options of `tqdm`.
    """
    hidden = not show or not is_main_process()
    return tqdm(items, leave=leave, disable=True if hidden else None, **options)
