"""A report, computed and written again from the trials."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan
from utils.compare.planning.record import Entry, read_record
from utils.compare.planning.registration import find_registration
from utils.compare.reporting import figures
from utils.compare.reporting.numbers import NUMBERS_FILE, SavedNumbers, report_numbers
from utils.compare.reporting.report import report_texts
from utils.compare.statistics.paired import NO_INTERVAL
from utils.compare.trials.latency import Latency, read_latency
from utils.compare.trials.results import TestImages
from utils.compare.verification.differences import NOTHING, Verification
from utils.compare.verification.rescoring import Outcomes
from utils.compare.workflow import find_stops
from utils.core.errors import UserError
from utils.core.inputs import is_file, read_file

IMAGE = re.compile(r'"data:image/[^"]*"')  # inside report.html


def check_report(
    found: Verification,
    saved: SavedNumbers,
    analysis: Callable[..., Comparison],
    plan: Plan,
    outcomes: Outcomes,
    splits: Mapping[str, TestImages],
) -> None:
    """Compute all numbers of the report again, and write all its texts again.

    Args:
        found: where differences are noted.
        saved: the numbers of the report.
        analysis: `analyze` with what cannot be computed again.
        plan: the plan.
        outcomes: its trials, scored again.
        splits: setting -> its test images.
    """
    history = read_record(found.out)[: saved.origin.record_lines]
    if plan.looks:
        plan = _at_look(plan, saved.numbers.get("seeds"), outcomes, history)
        outcomes = outcomes.of(plan)
    used = {result.trial.setting: splits[result.trial.setting] for result in outcomes.results}
    comparison = analysis(plan, outcomes.results, outcomes.failed, splits=used, history=history)
    registration = find_registration(found.out, saved.origin.plan)
    comparison = replace(comparison, registration=registration)
    found.compare(NUMBERS_FILE, saved.numbers, report_numbers(comparison))
    plots = {name: {"png": b""} for name in figures.names(comparison)}
    texts = report_texts(comparison, saved.origin.command, saved.origin.language, plots)
    for name, text in texts.items():
        _check_text(found, name, text)


def _at_look(plan: Plan, seeds: Any, outcomes: Outcomes, history: Sequence[Entry]) -> Plan:
    """The plan as the report of a declared look shows it: some seeds, and what has stopped."""
    for count in plan.looks:
        look = replace(plan, seeds=plan.seeds[:count], stops=plan.stops)
        own = outcomes.of(look)
        plan = replace(plan, stops=find_stops(look, own.results, own.failed, history))
        if list(look.seeds) == seeds:
            break
    return replace(look, stops=plan.stops)


def measured_latency(found: Verification, settings: Mapping[str, Any]) -> dict[str, Latency]:
    """The measurement, which cannot be repeated."""
    unknown = dict.fromkeys(settings, Latency(math.nan, NO_INTERVAL))
    try:
        return {**unknown, **read_latency(found.out)}
    except UserError as error:
        found.differences.append(str(error))
        return unknown


def _check_text(found: Verification, name: str, text: str) -> None:
    if not is_file(found.out / name):
        found.differences.append(f"{found.out / name}: missing")
        return
    stored = read_file(found.out / name).decode("utf-8", "replace")
    before, after = (IMAGE.sub('""', each).splitlines() for each in (stored, text))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        pairs = zip_longest(before[start:end], after[first:last], fillvalue=NOTHING)
        for number, lines in enumerate(pairs if kind != "equal" else (), start=start + 1):
            found.differ(name, f"line {number}", *_around_difference(*lines))
    found.checked.append(f"{name}: {len(after)} lines written again")


def _around_difference(one: str, other: str) -> tuple[str, str]:
    """Both lines from shortly before the first letter that differs."""
    same = 0
    while one[same : same + 1] == other[same : same + 1] != "":
        same += 1
    start = max(0, same - 20)
    return one[start : start + 60], other[start : start + 60]
