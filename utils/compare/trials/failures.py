"""Trials that failed: why, and whether the setting or the machine is to blame.

A comparison of the trials that survived flatters a setting that diverges. So a trial whose loss
was not finite counts as 0 AP; one that the machine lost is left out, whatever its setting; and an
error of unknown cause has to be fixed before there is a verdict.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from utils.core.errors import NonFiniteError, is_out_of_memory
from utils.core.inputs import ReadError, read_file
from utils.core.outputs import WriteError, write_file

ERROR = "error.txt"  # first line: the kind; then the message

FailureKind = Literal["diverged", "infrastructure", "error", "missing"]


@dataclass(frozen=True)
class Failure:
    """Why a trial failed.

    Attributes:
        kind: `diverged` (its loss or weights were not finite), `infrastructure` (memory, disk, a
            lost worker), `missing` (no file of foreign detections) or `error` (anything else).
        reason: one line for the report; to be written, it may have more.
    """

    kind: FailureKind
    reason: str


def classify(error: Exception) -> FailureKind:
    """The kind of failure that an error in a trial means."""
    if isinstance(error, NonFiniteError):
        return "diverged"
    if is_out_of_memory(error) or isinstance(error, (ReadError, WriteError, OSError)):
        return "infrastructure"
    return "error"


def write_failure(folder: Path, failure: Failure) -> None:
    """Mark the trial of a folder as failed; the report shows the last line of the reason."""
    write_file(folder / ERROR, f"{failure.kind}\n{failure.reason.rstrip()}\n")


def read_failure(folder: Path) -> Failure:
    """Why the trial of a folder failed; files of earlier versions do not tell the kind."""
    text = read_file(folder / ERROR).decode("utf-8", "replace")
    lines = text.rstrip().splitlines() or [""]
    kinds: dict[str, FailureKind] = {kind: kind for kind in get_args(FailureKind)}
    return Failure(kinds.get(lines[0], "error"), lines[-1])
