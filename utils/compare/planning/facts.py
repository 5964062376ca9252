"""What is known of detections that other programs made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from utils.core.inputs import hash_content, read_with
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


class ForeignFiles(SavedSection):
    """`Foreign` as the plan file has it.

    Attributes:
        folder: as in `Foreign`.
        truth: likewise.
        group: likewise.
        files: setting -> seed -> path.
        facts: as in `Foreign`.
        sha256: path -> hash of the file, of the truth and of all detections.
    """

    folder: str
    truth: str
    group: str | None
    files: dict[str, dict[int, str]]
    facts: dict[str, Facts]
    sha256: dict[str, str]

    @classmethod
    def of(cls, foreign: "Foreign") -> "ForeignFiles":
        """Hash the files.

        Raises:
            UserError: one cannot be read.
        """
        files = {}
        for name, by_seed in foreign.files.items():
            files[name] = {seed: str(path) for seed, path in by_seed.items()}
        paths = [foreign.truth, *(path for by_seed in files.values() for path in by_seed.values())]
        return cls(
            folder=foreign.folder,
            truth=foreign.truth,
            group=foreign.group,
            files=files,
            facts=dict(foreign.facts),
            sha256={path: read_with(hash_content, path) for path in paths},
        )

    def restored(self) -> "Foreign":
        """What was saved, before any of the files is read."""
        files = {}
        for name, by_seed in self.files.items():
            files[name] = {seed: Path(path) for seed, path in by_seed.items()}
        return Foreign(self.folder, self.truth, files, self.facts, self.group)


@dataclass(frozen=True)
class Foreign:
    """Detections that other programs made.

    Attributes:
        folder: their folder.
        truth: file with the test images' objects.
        group: key of its images by which they belong together; None: as `read_truth` finds it.
        files: setting -> seed -> file.
        facts: setting -> what is known of it.
        uncounted: number of detections beyond COCO's 100 best of an image and class.
        remarks: sentences on the files that a reader of the verdicts should know.
    """

    folder: str
    truth: str
    files: Mapping[str, Mapping[int, Path]]
    facts: Mapping[str, Facts]
    group: str | None = None
    uncounted: int = 0
    remarks: tuple[str, ...] = ()
