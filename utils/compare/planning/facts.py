"""What is known of detections that other programs made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from utils.core.validation import SavedSection

Amount = Annotated[float, Field(ge=0)]


class Facts(SavedSection):
    """What the user says of a setting; None: nothing.

    Attributes:
        params: number of parameters.
        gflops: 10^9 operations per image.
        latency_ms: milliseconds per image.
        train_seconds: duration of a training.
        control_of: name of the setting for which this one is the fair control.
        categories: category id in its files -> name of the category in the truth.
    """

    params: Annotated[int, Field(ge=0)] | None = None
    gflops: Amount | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    train_seconds: Amount | None = None
    control_of: str | None = None
    categories: dict[int, str] | None = None


@dataclass(frozen=True)
class Foreign:
    """Detections that other programs made.

    Attributes:
        folder: their folder.
        truth: file with the test images' objects.
        files: setting -> seed -> file.
        facts: setting -> what is known of it.
        uncounted: number of detections beyond COCO's 100 best of an image and class.
        remarks: sentences on the files that a reader of the verdicts should know.
    """

    folder: str
    truth: str
    files: Mapping[str, Mapping[int, Path]]
    facts: Mapping[str, Facts]
    uncounted: int = 0
    remarks: tuple[str, ...] = ()
