"""Progress bars, and times as people say them."""

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


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
