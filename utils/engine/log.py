"""The history of a training: results.csv, curves, TensorBoard."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.core import distributed
from utils.core.errors import UserError
from utils.core.files import write_file
from utils.visualization.plots import plot_training_curves

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


class RunLog:
    """Keeps `results.csv` and `curves.png` of a run up to date; only the main process writes.

    Args:
        run: folder of the run.
        tensorboard: also write event files, for `tensorboard --logdir runs`.

    Raises:
        UserError: TensorBoard is requested but not installed.
    """

    def __init__(self, run: Path, tensorboard: bool) -> None:
        self.run = run
        self.writer = None
        if tensorboard and distributed.is_main_process():
            self.writer = _summary_writer(run)

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
        plot_training_curves([dict(row) for row in history], self.run / "curves.png")
        if self.writer is not None:
            for key, value in history[-1].items():
                self.writer.add_scalar(key, value, int(history[-1]["epoch"]))
            self.writer.flush()


def _summary_writer(run: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "train.tensorboard=true: TensorBoard is not installed: pip install tensorboard"
        ) from None
    return SummaryWriter(str(run / "tensorboard"))
