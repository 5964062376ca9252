"""`report.json`: every number of a report, for programs; `--verify` computes it again."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.record import read_lines
from utils.compare.reporting.translation import Language
from utils.compare.trials.results import TrialResult
from utils.core.validation import SavedSection
from utils.engine.report import write_json

NUMBERS_FILE = "report.json"
DIGITS = 10  # significant; the last ones may depend on the machine


class Origin(SavedSection):
    """What a report was made from.

    Attributes:
        plan: name of the plan file.
        plan_sha256: SHA-256 of its content.
        record_lines: number of lines of the record.
        record_sha256: SHA-256 of these lines.
        command: the command line.
        language: language of the report.
    """

    plan: str
    plan_sha256: str
    record_lines: int
    record_sha256: str
    command: str
    language: Language


class SavedNumbers(SavedSection):
    """The content of `report.json`."""

    origin: Origin
    numbers: dict[str, Any]

    @property
    def trials(self) -> list[str]:
        """The trials that the report has results of."""
        trials = self.numbers.get("trials")
        return list(trials) if isinstance(trials, dict) else []


def write_numbers(out: Path, comparison: Comparison, command: str, language: Language) -> None:
    """Write `report.json`, after the results were added to the record.

    Raises:
        WriteError: the file cannot be written.
    """
    registration = comparison.registration
    lines = read_lines(out)
    origin = Origin(
        plan=registration.file if registration else "",
        plan_sha256=registration.sha256 if registration else "",
        record_lines=len(lines),
        record_sha256=hash_lines(lines),
        command=command,
        language=language,
    )
    saved = SavedNumbers(origin=origin, numbers=report_numbers(comparison))
    write_json(out / NUMBERS_FILE, saved.model_dump())


def hash_lines(lines: Sequence[bytes]) -> str:
    """SHA-256 of lines, in hexadecimal."""
    return hashlib.sha256(b"".join(lines)).hexdigest()


def report_numbers(comparison: Comparison) -> dict[str, Any]:
    """All numbers as plain values; unknown ones are None."""
    settings = {}
    for setting in comparison.settings:
        settings[setting.name] = _plain_fields(setting, leave_out=("name", "curves"))
    trials = {str(each.trial): _trial_numbers(each) for each in comparison.results.values()}
    pairs = {}
    for pair in comparison.pairs:
        pairs[title(pair.name, pair.reference)] = _plain_fields(pair)
    failed = {}
    for (name, seed), failure in comparison.failed.items():
        failed[f"{name}, seed {seed}"] = failure.kind
    return {
        "seeds": list(comparison.plan.seeds),
        "stops": {title(*pair): seeds for pair, seeds in comparison.plan.stops.items()},
        "look": comparison.look,
        "family": comparison.family,
        "images": comparison.images,
        "resamples": comparison.resamples,
        "settings": settings,
        "pairs": pairs,
        "trials": trials,
        "failed": failed,
    }


def title(name: str, reference: str) -> str:
    """`se against none`."""
    return f"{name} against {reference}"


def _trial_numbers(result: TrialResult) -> dict[str, Any]:
    return _plain_fields(result, leave_out=("trial", "curve", "machine", "truth"))


def _plain_fields(item: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    fields = dataclasses.fields(item)
    return {
        field.name: _plain(getattr(item, field.name))
        for field in fields
        if field.name not in leave_out
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it: tuples as lists, NaN and infinity as None."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        return _plain_fields(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
