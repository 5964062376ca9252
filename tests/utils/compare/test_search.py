"""A search: what it may see, what it trains, and the comparison that follows."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from utils.compare.search import Search, declare, make_search, search
from utils.compare.workflow import compare
from utils.core.errors import UserError
from utils.data.loading import load_dataset


@pytest.fixture
def make(tiny_words: Sequence[str], tmp_path: Path) -> Callable[[int], Search]:
    """Searches with a budget."""

    def made(budget: int, **changes: Sequence[int]) -> Search:
        options = {"seeds": [0], **changes}
        return make_search(
            "shapes.yaml",
            out=str(tmp_path / "out"),
            overrides=tiny_words,
            blocks=["eca"],
            sites=["default", "feat1"],
            budget=budget,
            finalists=1,
            search_with=["train.epochs=1"],
            **options,
        )

    return made


def test_the_finalists_are_compared_at_declared_looks(make: Callable[..., Search]):
    comparison = make(2, looks=[3, 5], seeds=range(5)).compare(["eca"])
    assert comparison.looks == (3, 5) and comparison.seeds == (0, 1, 2, 3, 4)


def test_it_sees_training_images_only(make: Callable[[int], Search]):
    made = make(2)
    comparison = made.compare(["eca"])
    for setting in made.plan.settings:
        data, size = setting.config.data, setting.config.input_size
        parts = [load_dataset(data, split, size).samples for split in ("train", "val")]
        own = comparison.settings[0].config
        train = load_dataset(own.data, "train", size).samples
        assert [len(part) for part in parts] == [10, 2] and data.test is None
        names = {sample.path for part in parts for sample in part}
        assert names == {sample.path for sample in train}
        assert (setting.config.train.epochs, own.train.epochs) == (1, 2)
    used = {seed for rung in made.rungs for seed in rung.seeds}
    assert used.isdisjoint(comparison.seeds)


def test_candidates_are_blocks_at_sites(tiny_words: Sequence[str]):
    made = make_search("shapes.yaml", overrides=tiny_words, blocks=["se", "se"], sites=["all"])
    assert len(made.phi) == 13 and made.phi["feat1=se"] == "{feat1: se}"
    assert made.parts["feat1=se"] == ("se", "feat1")
    assert made.plan.settings[0].name == "none"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"blocks": ["cbm"]}, "--blocks cbm: no such name; did you mean 'cbam'"),
        ({"sites": ["feat3"]}, "--sites feat3: no such name; did you mean"),
        ({"blocks": ["se", "eca"], "budget": 1}, "--budget 1: there are 2 candidates"),
        ({"blocks": ["se"], "seeds": [1, 1000]}, "--seeds 1000: the search uses seeds from 1000"),
        ({"blocks": ["se"], "overrides": ["data.val=train", "data.val_share=0.2"]}, "data.val: "),
    ],
)
def test_what_cannot_be_searched_is_refused(words: dict, message: str, tiny_words: Sequence[str]):
    with pytest.raises(UserError, match=message):
        make_search("shapes.yaml", **{"overrides": tiny_words, **words})


@pytest.mark.slow
def test_the_finalist_is_compared_with_none_and_its_control(make: Callable[[int], Search]):
    plan = search(make(2))
    assert plan.search is not None
    finalist = next(iter(plan.search.gains))
    names = [setting.name for setting in plan.settings]
    assert names == ["none", finalist, f"{finalist}-control"]
    with (plan.out / "search" / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == list(plan.search.gains) and len(rows) == 2
    comparison = compare(plan, [])
    assert comparison.family == 3
    text = (plan.out / "report.md").read_text(encoding="utf-8")
    assert "## Search: ranking" in text and "best of 2 candidates of a search" in text


def test_a_folder_keeps_its_search(make: Callable[[int], Search]):
    made = make(2)
    made.plan.out.mkdir(parents=True)
    declare(made)
    declare(made)
    with pytest.raises(UserError, match=r"search\.json: began with other rungs; give another"):
        declare(make(4))
