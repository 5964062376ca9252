"""What a training tells: a line per minute and per epoch, and whether it was long enough."""

import math
import time
from collections.abc import Mapping, Sequence
from statistics import linear_regression

from utils.core.progress import duration

LINE_SECONDS = 60.0  # between the lines within an epoch, which only a log file gets
LAST_PART = 1 / 3  # of the epochs, in which AP should hardly rise any more
RISE, RELATIVE_RISE = 0.01, 0.05  # of AP, as a fraction
MORE = 2  # times as many epochs are suggested


class Clock:
    """Estimates the time that is left.

    Args:
        total: steps of the whole training.
        done: steps that were finished before this process started.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._first = done
        self._started = self._told = time.monotonic()

    def left(self, done: int) -> str:
        """`12 min left`, from the pace since the start, evaluations included."""
        elapsed = time.monotonic() - self._started
        pace = elapsed / max(1, done - self._first)
        return f"{duration(pace * (self._total - done))} left"

    def is_due(self) -> bool:
        """Whether a minute has passed since this was last so."""
        now = time.monotonic()
        if now - self._told < LINE_SECONDS:
            return False
        self._told = now
        return True


def epoch_line(row: Mapping[str, float], epochs: int, improved: bool, left: str) -> str:
    """`epoch 3/25  loss 5.561  AP50 22.4  AP 8.1  best  (12 min left)`.

    Args:
        row: of the history, keyed by `log.COLUMNS`.
        epochs: number of epochs of the training.
        improved: whether its evaluation is the best one so far.
        left: the time left, or why the training ends before its last epoch.
    """
    text = f"epoch {int(row['epoch'])}/{epochs}  loss {row['loss']:.3f}"
    if math.isnan(row.get("map50_95", 0.0)):
        text += "  AP unknown: no objects to find, so the last epoch counts as best"
    elif "map50" in row:
        text += f"  AP50 {100 * row['map50']:.1f}  AP {100 * row['map50_95']:.1f}"
        text += "  best" if improved else ""
    return text if row["epoch"] == epochs else f"{text}  ({left})"


def note_if_rising(history: Sequence[Mapping[str, float]]) -> str | None:
    """What to do if AP was still rising when the training ended, else None.

    It was if the straight line through the evaluations of the last third rises by more than a point
    and by more than a twentieth of the AP reached.

    Args:
        history: one row per epoch, keyed by `log.COLUMNS`.
    """
    epochs = len(history)
    late = [
        (row["epoch"], row["map50_95"])
        for row in history
        if row["epoch"] > (1 - LAST_PART) * epochs and not math.isnan(row.get("map50_95", math.nan))
    ]
    if len(late) < 3:
        return None
    slope, start = linear_regression(*zip(*late, strict=True))
    first, last = (start + slope * late[index][0] for index in (0, -1))
    if last - first <= max(RISE, RELATIVE_RISE * last):
        return None
    return (
        f"note: AP was still rising, from {100 * first:.1f} to {100 * last:.1f} in the last third "
        f"of the epochs: train longer, e.g. train.epochs={MORE * epochs}"
    )
