"""The history of a training: results.csv, curves, experiment trackers."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from utils.core import distributed
from utils.core.outputs import write_file
from utils.core.schema import Config
from utils.engine.loggers import LoggedRun
from utils.visualization.plots import plot_training_curves

PLOT_SECONDS = 10.0
COLUMNS = (
    "epoch",
    "lr",
    "loss",
    "box",
    "objectness",
    "cls",
    "map50",
    "map50_95",
    "voc_ap50",
    "seconds",
)


class RunLog(AbstractContextManager["RunLog"]):
    """Keeps `results.csv` and `curves.png` of a run up to date; only the main process writes.

    In a `with` block, the configured experiment trackers get the numbers, too. The curves are drawn
    again after `PLOT_SECONDS` at the earliest, as short epochs would spend their time on them, and
    at the end of the block; `draw` does not wait.

    Args:
        run: folder of the run.
        config: its configuration.
    """

    def __init__(self, run: Path, config: Config) -> None:
        self.run = run
        self._config = config
        self._trackers: list[LoggedRun] = []
        self._drawn_at = -math.inf
        self._not_drawn: list[dict[str, float]] = []

    def __enter__(self) -> "RunLog":
        """Start the trackers.

        Raises:
            UserError: one of them does not start; those before it are ended.
        """
        try:
            if distributed.is_main_process():
                for name in self._config.train.loggers:
                    self._trackers.append(LoggedRun(name, self.run, self._config))
        except BaseException as error:
            self._close_trackers(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.draw()
        self._close_trackers(kind)

    def _close_trackers(self, kind: type[BaseException] | None) -> None:
        """End the runs in the trackers, as it ended here."""
        status = "FINISHED"
        if kind is not None:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        for tracker in self._trackers:
            tracker.close(status)

    @distributed.main_process_only
    def write(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the whole history, so that a resumed run drops rows of steps that it repeats.

        Args:
            history: one row per finished epoch, keyed by `COLUMNS`; metrics only where measured.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        write_file(self.run / "results.csv", text.getvalue())
        self._not_drawn = [dict(row) for row in history]
        if time.monotonic() - self._drawn_at >= PLOT_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw the curves, if they are behind `results.csv`."""
        if not self._not_drawn:
            return
        plot_training_curves(self._not_drawn, self.run / "curves.png")
        self._not_drawn = []
        self._drawn_at = time.monotonic()

    def send(self, history: Sequence[Mapping[str, float]]) -> None:
        """Hand the history to the trackers; this may wait for a server."""
        for tracker in self._trackers:
            tracker.write(history)
