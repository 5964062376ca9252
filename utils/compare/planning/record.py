"""The record of a comparison: every setting, seed and look. It only ever grows.

A correction for several tests is worth nothing if the tests that were disappointing can be left
out afterwards. So the family is everything that was ever compared in the folder: `record.jsonl`
gets a line when trials are begun (`plan`), and one when their results are shown (`look`). Each line
ends with a hash of itself and of all lines before it, so that a change is noticed.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Literal

from pydantic import Field

from utils.compare.planning.plan import Plan
from utils.core.errors import UserError
from utils.core.inputs import is_file, read_file
from utils.core.outputs import write_file
from utils.core.validation import SavedSection, validate_json

RECORD = "record.jsonl"
MAX_BYTES = 64 * 2**20
CHAIN = re.compile(rb', "chain": "([0-9a-f]{64})"}\n?$')  # at the end of a line

Differences = Mapping[int, float]  # by seed, in points


class PairRecord(SavedSection):
    """A setting and its reference, which are going to be compared or were.

    Attributes:
        setting: name and digest of the setting.
        reference: name and digest of the reference.
        differences: seed -> AP difference, in points; empty in a plan.
    """

    setting: str
    reference: str
    differences: dict[str, float]


class PlanMark(SavedSection):
    """The file of a plan.

    Attributes:
        file: its name, in the folder of the comparison.
        sha256: SHA-256 of its content.
        begun: number of trials that had begun when it was written.
    """

    file: str
    sha256: str
    begun: int


class Entry(SavedSection):
    """A line of the record.

    Attributes:
        kind: `plan` when trials are begun, `look` when results are shown.
        time: local time.
        seeds: the seeds of the plan.
        margin: the margin of the plan, in points.
        looks: number of seeds at each declared look; empty: none were declared.
        pairs: what is compared.
        plan: the file of the plan; earlier versions wrote none.
        chain: SHA-256 of all lines so far, this one without its chain.
    """

    kind: Literal["plan", "look"]
    time: str
    seeds: list[int]
    margin: float | None = None
    looks: list[int] = Field(default_factory=list)
    pairs: list[PairRecord]
    plan: PlanMark | None = None
    chain: str = ""


def read_record(out: Path) -> list[Entry]:
    """The record of a folder; empty if it has none.

    Raises:
        UserError: it is damaged.
    """
    hint = "; give another --out"
    return [
        validate_json(Entry, line, f"{out / RECORD}:{number}", hint)
        for number, line in enumerate(read_lines(out), start=1)
    ]


def append_plan(out: Path, plan: Plan, mark: PlanMark | None = None) -> None:
    """Record what is about to be compared, and the file of the plan."""
    _append(out, make_entry("plan", plan).model_copy(update={"plan": mark}))


def append_look(out: Path, plan: Plan, tests: Mapping[tuple[str, str], Differences]) -> None:
    """Record the results that are about to be shown.

    Args:
        out: folder of the comparison.
        plan: the plan.
        tests: (setting, reference) -> AP differences.
    """
    _append(out, make_entry("look", plan, tests))


def make_entry(
    kind: Literal["plan", "look"],
    plan: Plan,
    tests: Mapping[tuple[str, str], Differences] | None = None,
) -> Entry:
    """A line of the record; without tests, for what is going to be compared."""
    names = {setting.name: f"{setting.name} {setting.digest}" for setting in plan.settings}
    pairs = []
    nothing: dict[tuple[str, str], Differences] = {key: {} for key in plan.pairs}
    for (name, reference), differences in (tests or nothing).items():
        by_seed = {str(seed): round(value, 4) for seed, value in sorted(differences.items())}
        pair = PairRecord(setting=names[name], reference=names[reference], differences=by_seed)
        pairs.append(pair)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return Entry(
        kind=kind,
        time=now,
        seeds=list(plan.seeds),
        margin=plan.margin,
        looks=list(plan.looks),
        pairs=pairs,
    )


def check_declared_looks(plan: Plan) -> None:
    """Refuse other looks than those declared before any result was shown in the plan's folder.

    Raises:
        UserError: they are others, chosen when results were known.
    """
    shown = [entry for entry in read_record(plan.out) if entry.kind == "look"]
    if shown and shown[0].looks != list(plan.looks):
        raise UserError(
            f"{_option(plan.looks)}: results in {plan.out} were already shown with "
            f"{_option(shown[0].looks)}, and looks are declared before; give another --out"
        )


def _option(looks: Sequence[int]) -> str:
    return f"--looks {' '.join(map(str, looks))}" if looks else "no --looks"


def with_declared_margin(plan: Plan) -> Plan:
    """The plan with the margin that was declared before any result was shown in its folder.

    Raises:
        UserError: it has another one, chosen when results were known.
    """
    looks = [entry for entry in read_record(plan.out) if entry.kind == "look"]
    if not looks or plan.margin == looks[0].margin:
        return plan
    if plan.margin is None:
        return replace(plan, margin=looks[0].margin)
    before = "none" if looks[0].margin is None else f"{looks[0].margin:g}"
    raise UserError(
        f"--margin {plan.margin:g}: results in {plan.out} were already shown with the margin "
        f"{before}, and a margin is declared before; give another --out"
    )


def _append(out: Path, entry: Entry) -> None:
    if _content(entry) in map(_content, read_record(out)):
        return
    before = b"".join(read_lines(out))
    text = json.dumps(entry.model_dump(exclude={"chain"}), ensure_ascii=False)
    line = text.encode("utf-8", "backslashreplace")
    chain = f', "chain": "{_chain(before, line)}"}}\n'.encode()
    write_file(out / RECORD, before + line[:-1] + chain)


def _chain(before: bytes, line: bytes) -> str:
    return hashlib.sha256(before + line).hexdigest()


def read_lines(out: Path) -> list[bytes]:
    """The lines of the record with their ends; none if there is no record."""
    path = out / RECORD
    return read_file(path, max_bytes=MAX_BYTES).splitlines(True) if is_file(path) else []


def find_edited_line(lines: Sequence[bytes]) -> int | None:
    """The number of the first line that is not as it was written, or comes after a lost one.

    Lines at the end can be removed unnoticed; those of earlier versions have no hash, and are
    covered by the first line that has one.
    """
    is_chained = False
    for number, line in enumerate(lines, start=1):
        match = CHAIN.search(line)
        if match is None:
            if is_chained:
                return number
            continue
        is_chained = True
        before, own = b"".join(lines[: number - 1]), line[: match.start()] + b"}"
        if _chain(before, own).encode() != match[1]:
            return number
    return None


def _content(entry: Entry) -> str:
    """Everything but the time, and what follows from when it was written."""
    begun = {"begun"} if entry.plan else True
    return entry.model_dump_json(exclude={"time": True, "chain": True, "plan": begun})


def count_looks(entries: Sequence[Entry]) -> int:
    """How often different results were shown."""
    return len({_content(entry) for entry in entries if entry.kind == "look"})


def count_family(entries: Sequence[Entry], min_seeds: int = 3) -> int:
    """How many tests were made.

    Each look at a pair with other results is one more test, because each is another chance to be
    wrong; except for declared looks, which together are one. A pair that was never seen with enough
    seeds for a verdict counts once.

    Args:
        entries: the record.
        min_seeds: the fewest seeds that can get a verdict.
    """
    single: dict[tuple[str, str], set[str]] = {}
    declared: dict[tuple[str, str], list[tuple[int, dict[str, float]]]] = {}
    for entry in entries:
        for pair in entry.pairs:
            key = pair.setting, pair.reference
            seen, paths = single.setdefault(key, set()), declared.setdefault(key, [])
            if len(pair.differences) < min_seeds:
                continue
            if entry.looks:
                paths.append((len(entry.seeds), pair.differences))
            else:
                seen.add(json.dumps(pair.differences))
    return sum(max(1, len(seen) + _count_paths(declared[key])) for key, seen in single.items())


def _count_paths(results: Sequence[tuple[int, dict[str, float]]]) -> int:
    """How many series of looks results belong to. From look to look, a series only gains seeds.

    Args:
        results: number of seeds at the look, and the differences by seed.
    """
    ends: list[tuple[int, dict[str, float]]] = []
    for seeds, differences in sorted(results, key=itemgetter(0)):
        for index, (before, end) in enumerate(ends):
            if end == differences or (before < seeds and end.items() <= differences.items()):
                ends[index] = seeds, differences
                break
        else:
            ends.append((seeds, differences))
    return len(ends)
