"""Reports in Chinese: nothing is left untranslated, and the long texts stay in step."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.utils.compare.example_scores import NONE
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.registration import Registration
from utils.compare.reporting import report
from utils.compare.reporting.translation import (
    LANGUAGE_FOLDER,
    PLACEHOLDER,
    Translator,
    read_phrases,
)
from utils.compare.trials.failures import Failure
from utils.core.config import update_config

NEAR = [30.1, 30.2, 29.9, 30.2, 29.7, 30.3]
BETTER = [32.1, 32.2, 31.9, 32.1, 31.8, 32.3]
ABOVE = [30.4, 30.8, 30.2, 30.6, 30.3, 30.7]
VAGUE = [32.4, 30.0, 28.2, 33.6, 30.3, 30.7]
DIVERGED, LOST, BROKEN = (
    Failure(kind, "reason") for kind in ("diverged", "infrastructure", "error")
)
SITUATIONS = (
    {"none": NONE, "se": BETTER, "eca": NEAR, "ca": [LOST, *NONE[1:]]},
    {"none": BETTER, "se": NONE, "eca": [DIVERGED, *NONE[1:4], DIVERGED, BROKEN]},
    {"none": NONE, "se": NEAR, "eca": ABOVE, "ca": VAGUE, "margin": 1.0},
    {"none": ABOVE, "se": NONE, "eca": [*NONE[:5], 60.0], "margin": 1.0},
    {"none": NONE[:1], "se": NEAR[:1]},
    {"none": NONE[:2], "se": [31.0, 31.3]},
    {"none": NONE, "se": [33.0, *BETTER[1:]], "looks": (5, 6, 9), "stops": {("se", "none"): 5}},
    {"none": NONE, "se": VAGUE, "eca": NEAR, "looks": (3, 6, 9), "margin": 1.0},
    {"none": NONE, "se": VAGUE, "eca": NEAR, "looks": (5, 6), "margin": 1.0},
    {"none": [1.0, 1.1, 0.9, 1.0, 1.1], "se": [1.1, 1.0, 0.9, 1.0, 1.1], "margin": 1.0},
)
# English words that a Chinese report has no use for
ENGLISH = re.compile(r"\b(the|of|to|is|on|and|in|with|for|than|more|seeds?|against|differ)\b")
# Names, and what is the same in all languages
VERBATIM = {"none", "se", "eca", "ca", "reason", "shapes"}


@pytest.fixture
def translators(monkeypatch: pytest.MonkeyPatch) -> list[Translator]:
    """Those that reports are made with."""
    made: list[Translator] = []

    def make(phrases: dict[str, str]) -> Translator:
        made.append(Translator(phrases))
        return made[-1]

    monkeypatch.setattr(report, "Translator", make)
    return made


def with_notes(comparison: Comparison) -> Comparison:
    """The comparison with all that is noted below the verdicts, and other conditions."""
    plan = comparison.plan
    three = {
        "data.test": "test",
        "data.root": "data/x",
        "eval.vote_iou": 1.0,
        "train.select": "best",
    }
    first, second = plan.settings
    first = replace(first, config=update_config(first.config, three))
    second = replace(second, config=update_config(first.config, {"train.batch_size": 7}))
    settings = [replace(setting, rising=2) for setting in comparison.settings]
    plan = replace(plan, settings=(first, second))
    changed = Registration("plan-2.yaml", "0f", "2026-01-01", 3, "plan.yaml", ("+settings.ca",))
    return replace(comparison, plan=plan, settings=settings, look=2, registration=changed)


def test_nothing_stays_untranslated(
    scored: Callable[..., Comparison], translators: list[Translator]
):
    comparisons = [scored(**situation) for situation in SITUATIONS]
    comparisons.append(with_notes(scored(none=NONE, se=NEAR)))
    planned = Registration("plan.yaml", "0f", "2026-01-01", 0)
    comparisons.append(replace(comparisons[0], registration=planned))
    page = report.render_html(comparisons[1], "command", "zh")
    assert '<html lang="zh-CN">' in page and "次训练失败" in page and "Verdict" not in page
    for comparison in comparisons:
        text = report.render_markdown(comparison, "command", "zh")
        assert not ENGLISH.findall(text)
    missing = set().union(*(translator.untranslated for translator in translators))
    verbatim = VERBATIM | set(comparisons[0].settings[0].per_class)
    assert missing <= verbatim, "phrases for languages/zh/phrases.yaml"


def test_english_is_not_touched():
    text = "se is better than none by 2.00 AP (on 6 of 6 seeds). And so on."
    assert Translator(read_phrases("en"))(text) == text


def test_a_sentence_without_a_phrase_stays_english():
    translate = Translator({"{name} has {count:n} parts.": "{name} 有 {count} 个部分。"})
    assert translate("a b has 1,200 parts.") == "a b 有 1,200 个部分。"
    text = "se has 3 parts. It is new. x has 4 parts."
    assert translate(text) == "se 有 3 个部分。It is new. x 有 4 个部分。"
    assert translate.untranslated == {"It is new."}


def test_translations_use_what_they_are_given():
    for english, own in read_phrases("zh").items():
        given = {name for name, _ in PLACEHOLDER.findall(english)}
        used = {name for name, _ in PLACEHOLDER.findall(own)}
        assert used <= given and (english == "–" or not given - used), english


@pytest.mark.parametrize("path", sorted(LANGUAGE_FOLDER.glob("*/*.jinja")), ids=lambda p: p.name)
def test_a_template_is_in_step_with_the_english_one(path: Path):
    """The same items, values and conditions."""
    english = (report.TEMPLATES / path.name).read_text(encoding="utf-8")
    own = path.read_text(encoding="utf-8")
    for what in (r"\{% .*? %\}", r"(?:plan|comparison)\.\w+", r"\{\{ (?!plan)\w+"):
        assert set(re.findall(what, own)) == set(re.findall(what, english))
