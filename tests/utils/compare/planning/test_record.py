"""Nothing that was ever compared in a folder leaves the family of its tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.utils.compare.example_scores import NONE
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.record import (
    RECORD,
    append_look,
    append_plan,
    check_declared_looks,
    count_family,
    count_looks,
    read_record,
    with_declared_margin,
)
from utils.core.errors import UserError

Scored = Callable[..., Comparison]
AHEAD = [31.1, 30.6, 30.4, 30.4, 30.7, 30.2]  # p 0.02
SAME = [30.1, 30.2, 29.9, 30.2, 29.7, 30.3]


def look(comparison: Comparison, out: Path) -> None:
    """What `compare` records of a comparison."""
    append_plan(out, comparison.plan)
    append_look(out, comparison.plan, comparison.tests)


def test_fewer_settings_do_not_lower_the_correction(scored: Scored, tmp_path: Path):
    many = dict.fromkeys(("a", "b", "c", "d", "e"), SAME)
    first = scored(none=NONE, se=AHEAD, **many)
    assert first.look == 1 and first.family == 6
    assert first.pairs[0].verdict != "better"
    look(first, tmp_path)
    again = scored(none=NONE, se=AHEAD)
    assert again.look == 2 and again.family == 6
    assert again.pairs[0].corrected_p == first.pairs[0].corrected_p
    alone = scored(history=[], none=NONE, se=AHEAD)
    assert alone.pairs[0].verdict == "better"  # what the record is for


def test_every_look_with_other_seeds_is_one_more_test(scored: Scored, tmp_path: Path):
    for count in (3, 4, 6):
        comparison = scored(none=NONE[:count], se=AHEAD[:count])
        look(comparison, tmp_path)
    assert (comparison.look, comparison.family) == (3, 3)
    # back to three seeds: no new data, so no new look, but no smaller family either
    fewer = scored(none=NONE[:3], se=AHEAD[:3])
    look(fewer, tmp_path)
    assert (fewer.look, fewer.family) == (3, 3)


def test_the_same_results_again_are_no_new_look(scored: Scored, tmp_path: Path):
    for _ in range(3):
        look(scored(none=NONE, se=SAME), tmp_path)
    entries = read_record(tmp_path)
    assert [entry.kind for entry in entries] == ["plan", "look"]
    assert count_looks(entries) == count_family(entries) == 1
    retrained = scored(none=[*NONE[:5], 30.4], se=SAME)  # the same seeds, another result
    assert (retrained.look, retrained.family) == (2, 2)


def test_a_plan_that_was_begun_and_not_finished_counts(scored: Scored, tmp_path: Path):
    append_plan(tmp_path, scored(none=NONE, se=AHEAD, a=SAME, b=SAME).plan)
    comparison = scored(none=NONE, se=AHEAD)
    assert (comparison.look, comparison.family) == (1, 3)


def test_the_record_only_grows(scored: Scored, tmp_path: Path):
    look(scored(none=NONE, se=AHEAD), tmp_path)
    before = (tmp_path / RECORD).read_bytes()
    look(scored(none=NONE, se=AHEAD, a=SAME), tmp_path)
    after = (tmp_path / RECORD).read_bytes()
    assert after.startswith(before) and len(after.splitlines()) == 4


def test_a_margin_is_declared_before_the_first_look(scored: Scored, tmp_path: Path):
    plan = scored(none=NONE, se=SAME).plan
    with_margin = replace(plan, margin=1.0)
    append_plan(tmp_path, plan)
    assert with_declared_margin(with_margin).margin == 1.0  # nothing was shown yet
    look(scored(margin=1.0, none=NONE, se=SAME), tmp_path)
    assert with_declared_margin(plan) == with_margin == with_declared_margin(with_margin)
    with pytest.raises(UserError, match=r"--margin 2: results in .* with the margin 1, and a marg"):
        with_declared_margin(replace(plan, margin=2.0))


def test_looks_are_declared_before_the_first_one(scored: Scored, tmp_path: Path):
    plan = scored(none=NONE, se=SAME).plan
    declared = replace(plan, looks=(3, 6))
    append_plan(tmp_path, plan)
    check_declared_looks(declared)  # nothing was shown yet
    look(scored(looks=(3, 6), none=NONE, se=SAME), tmp_path)
    check_declared_looks(declared)
    message = r"{}: results in .* already shown with --looks 3 6, and looks are declared before"
    for looks, option in (((), "no --looks"), ((3, 5, 6), "--looks 3 5 6")):
        with pytest.raises(UserError, match=message.format(option)):
            check_declared_looks(replace(plan, looks=looks))


def test_declared_looks_together_are_one_test(scored: Scored, tmp_path: Path):
    looks = (3, 4, 6)
    for count in looks:
        comparison = scored(looks=looks, none=NONE[:count], se=AHEAD[:count])
        assert comparison.family == 1
        look(comparison, tmp_path)
    assert count_looks(read_record(tmp_path)) == 3
    again = scored(looks=looks, none=NONE[:4], se=AHEAD[:4])  # an interrupted command repeats it
    assert again.family == 1
    # other results at a look, or other seeds, are another chance to be wrong
    retrained = scored(looks=looks, none=[30.1, *NONE[1:4]], se=AHEAD[:4])
    assert retrained.family == 2
    other_seeds = replace(again.plan, seeds=(3, 4, 5))
    tests = {("se", "none"): dict(zip((3, 4, 5), AHEAD, strict=False))}
    append_look(tmp_path, other_seeds, tests)
    assert count_family(read_record(tmp_path)) == 2


@pytest.mark.parametrize("line", ["{", "[]", '{"kind": "look"}'])
def test_a_damaged_record_is_one_line(line: str, tmp_path: Path):
    (tmp_path / RECORD).write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"record\.jsonl:1: .*; give another --out") as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
