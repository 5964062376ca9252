"""One comparison on several datasets: the mean over them, and when it gets a verdict."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.utils.compare.example_scores import NONE
from utils.compare import datasets
from utils.compare.analysis.comparison import Comparison
from utils.compare.datasets import folders, sentence, summarize_datasets
from utils.compare.trials.failures import Failure
from utils.core.errors import UserError

SE = {
    "steel": [31.1, 31.0, 30.9, 31.3, 30.8, 31.3],
    "cells": [30.4, 30.2, 30.1, 30.0, 30.2, 30.1],
    "boards": [30.5, 30.9, 30.4, 30.2, 30.6, 30.7],
}
Scored = Callable[..., Comparison]


def on_datasets(scored: Scored, margin: float | None = None) -> dict[str, Comparison]:
    return {name: scored(none=NONE, se=values, margin=margin) for name, values in SE.items()}


def test_the_mean_over_datasets_is_tested_over_seeds(scored: Scored):
    (pair,) = summarize_datasets(on_datasets(scored))
    differences = np.array([np.subtract(values, NONE) for values in SE.values()])
    test = stats.ttest_1samp(differences.mean(0), 0)
    assert (pair.name, pair.reference, pair.ap.seeds) == ("se", "none", 6)
    assert pair.ap.mean == pytest.approx(differences.mean(), abs=1e-6)
    assert pair.ap.p == pair.judgement.p == pytest.approx(test.pvalue, rel=1e-6)
    assert pair.judgement.verdict == "better"
    low, high = stats.ttest_1samp(differences.mean(1), 0).confidence_interval()
    assert pair.other_datasets == pytest.approx((low, high), abs=1e-6)
    text = f"se is better than none by {differences.mean():.2f} AP"
    assert sentence(pair) == f"{text} on average over these 3 datasets, 6 seeds each."


def test_only_seeds_of_all_datasets_count(scored: Scored):
    lost = Failure("infrastructure", "reason")
    found = on_datasets(scored)
    found["cells"] = scored(none=NONE, se=[lost, *SE["cells"][1:]])
    (pair,) = summarize_datasets(found)
    expected = np.mean([np.subtract(values, NONE)[1:] for values in SE.values()])
    assert pair.ap.seeds == 5 and pair.ap.mean == pytest.approx(expected, abs=1e-6)


def test_no_verdict_while_a_dataset_has_none(scored: Scored):
    found = on_datasets(scored)
    found["cells"] = scored(none=NONE, se=[Failure("error", "reason"), *SE["cells"][1:]])
    (pair,) = summarize_datasets(found)
    assert pair.judgement.verdict.startswith("no difference") and np.isnan(pair.judgement.p)


def test_earlier_looks_at_any_dataset_count(scored: Scored):
    found = on_datasets(scored)
    found["boards"] = replace(found["boards"], family=4)
    (pair,) = summarize_datasets(found)
    assert pair.judgement.p == pytest.approx(4 * pair.ap.p)


def test_equality_over_datasets_takes_the_margin(scored: Scored):
    (pair,) = summarize_datasets(on_datasets(scored, margin=1.0))
    assert pair.judgement.equivalence_p < 0.05
    (pair,) = summarize_datasets(on_datasets(scored, margin=0.5))
    assert pair.judgement.equivalence_p > 0.05


def test_folders_lie_side_by_side(tmp_path: Path):
    assert folders(["bccd.yaml", "neu_det.yaml"], str(tmp_path)) == [
        str(tmp_path / "bccd"),
        str(tmp_path / "neu_det"),
    ]
    assert folders(["bccd.yaml", "voc.yaml"], None)[0] == "runs/compare-bccd-voc/bccd"
    (tmp_path / "bccd.yaml").write_text("{}")
    with pytest.raises(UserError, match="two configurations are named bccd; rename one"):
        folders(["bccd.yaml", str(tmp_path / "bccd.yaml")], None)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_names_every_dataset(
    scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language
):
    found = on_datasets(scored, margin=1.0)
    plans = []
    for name, comparison in found.items():
        plans.append(replace(comparison.plan, config_name=name, out=tmp_path / name))
    monkeypatch.setattr(datasets, "compare", lambda plan, *words: found[plan.config_name])
    pairs = datasets.compare_datasets(plans, ["python", "compare.py"], None, language)
    assert "report.html" in datasets.summarize(pairs, plans)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for name in SE:
        assert f'<a href="{name}/report.html">' in page and f"[{name}]({name}/report.md)" in text
    assert ("average" in text) == (language == "en") and ("平均" in text) == (language == "zh")
