"""The plan is written before the first trial, and can be read back."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from utils.compare.analysis.comparison import Comparison
from utils.compare.planning import plan_file
from utils.compare.planning.plan import Plan
from utils.compare.planning.plan_file import PLAN_FILE, load_plan_file, restore_plan
from utils.compare.planning.record import RECORD, find_edited_line, read_lines, read_record
from utils.compare.planning.registration import register
from utils.compare.planning.request import make_plan
from utils.compare.reporting.phrases import notes
from utils.compare.statistics.halving import SearchResult
from utils.core.config import update_config
from utils.core.errors import UserError
from utils.data.loading import load_dataset
from utils.engine.datasets import Datasets
from utils.engine.runs import LAST


@pytest.fixture(autouse=True)
def fast_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "hash_code", lambda: "code")
    monkeypatch.setattr(plan_file, "read_commit", lambda: None)


@pytest.fixture(scope="module")
def whole_plan(tmp_path_factory: pytest.TempPathFactory, tiny_words: tuple[str, ...]) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "settings.yaml"
    text = (
        "none: {}\n'se, 50%: #1': {phi: se, attention.at: [feat1]}\n"
        "per site: {phi: {feat1: eca, feat2: {name: se, reduction: 8}}}\n"
        "more: {data.shapes_train: 14, seed: 3}\n"
    )
    path.write_text(text, encoding="utf-8")
    words = [*tiny_words, "data.shapes_train=8", "data.shapes_val=4"]
    return make_plan("shapes.yaml", (), str(path), (3, 5), None, None, words, 0.5)


@pytest.fixture
def plan(whole_plan: Plan, tmp_path: Path) -> Plan:
    found = SearchResult(
        gains={"se": {1000: 0.5, 1001: -0.25}}, blocks={"se": 0.0}, sites={"feat1": 0.0}
    )
    return replace(whole_plan, out=tmp_path / "out", search=found)


def open_tiny(plan: Plan) -> Datasets:
    config = plan.settings[0].config
    train, val = (load_dataset(config.data, name, config.input_size) for name in ("train", "val"))
    return Datasets(train, val)


def begin(plan: Plan) -> None:
    """As if its first trial had begun."""
    folder = plan.trials[0].folder
    folder.mkdir(parents=True)
    (folder / LAST).touch()


def test_the_file_gives_the_plan_back(plan: Plan):
    written = register(plan, open_tiny(plan))
    assert (written.file, written.begun, written.changes) == (PLAN_FILE, 0, ())
    content = load_plan_file(plan.out / PLAN_FILE)
    restored = restore_plan(content, plan.out)
    assert restored.trials == plan.trials and restored.pairs == plan.pairs
    assert restored.search == plan.search
    assert [each.digest for each in restored.settings] == [each.digest for each in plan.settings]
    assert content.data.keys() == {"train", "val", "train of more"}
    assert content.data["train"].images == 8 and content.data["train of more"].images == 14
    assert len(content.hypotheses) == 6
    (entry,) = read_record(plan.out)
    assert entry.plan is not None and entry.plan.sha256 == written.sha256


def test_another_plan_is_another_file(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    datasets = open_tiny(plan)
    first = register(plan, datasets)
    before = (plan.out / PLAN_FILE).read_bytes()
    assert register(plan, datasets) == first
    begin(plan)
    fewer = replace(plan, seeds=(3,), settings=plan.settings[:-1])
    second = register(fewer, datasets)
    assert (second.file, second.begun, second.earlier) == ("plan-2.yaml", 1, PLAN_FILE)
    assert second.changes == ("seeds [3, 5] -> [3]", "-settings.more", "-data.train of more")
    assert (plan.out / PLAN_FILE).read_bytes() == before
    monkeypatch.setattr(plan_file, "hash_code", lambda: "other")
    assert register(plan, datasets, is_finished=True) == first  # nothing is left to be trained
    assert register(plan, datasets).changes[-1] == "code.sha256"
    assert find_edited_line(read_lines(plan.out)) is None


def test_a_change_of_plan_is_noted(plan: Plan, scored: Callable[..., Comparison]):
    begin(plan)
    register(plan, open_tiny(plan))
    later = register(replace(plan, margin=None), open_tiny(plan))
    comparison = replace(scored(none=[30.0, 30.1], se=[30.0, 30.2]), registration=later)
    expected = "The plan was changed after 1 trials had begun: margin 0.5 -> None."
    assert expected in notes(comparison)


def test_trials_cannot_see_different_data(plan: Plan):
    datasets = open_tiny(plan)
    register(plan, datasets)
    sample = datasets.train.samples[0]
    datasets.train.samples[0] = replace(sample, path=Path("renamed"))
    assert register(plan, datasets).changes == ("data.train",)  # no trial has begun
    begin(plan)
    changed = replace(datasets.val.samples[0], boxes=datasets.val.samples[0].boxes + 1)
    datasets.val.samples[0] = changed
    with pytest.raises(UserError, match=r"out: the labels of split 'val' have changed since plan"):
        register(plan, datasets)


def test_an_edited_plan_is_refused(plan: Plan):
    register(plan, open_tiny(plan))
    path = plan.out / PLAN_FILE
    path.write_text(path.read_text(encoding="utf-8").replace("margin: 0.5", "margin: 5.0"))
    with pytest.raises(UserError, match=r"plan\.yaml: was edited: its SHA-256 is [0-9a-f]{64}"):
        register(plan, open_tiny(plan))


def test_any_change_of_the_record_is_found(plan: Plan):
    datasets = open_tiny(plan)
    for seeds in ((0,), (0, 1), (0, 1, 2)):
        register(replace(plan, seeds=seeds), datasets)
    lines = read_lines(plan.out)
    assert find_edited_line(lines) is None and len(lines) == 3
    assert find_edited_line(lines[1:]) == 1
    assert find_edited_line([lines[0], lines[2]]) == 2
    assert find_edited_line([lines[1], lines[0], lines[2]]) == 1
    assert find_edited_line([*lines[:1], lines[1].replace(b"margin", b"Margin"), lines[2]]) == 2
    without = re.sub(rb', "chain": "\w+"', b"", lines[1])
    assert find_edited_line([lines[0], without, lines[2]]) == 2
    # lines of earlier versions have no chain; the first line with one covers them
    assert find_edited_line([without]) is None
    (plan.out / RECORD).write_bytes(without)
    register(replace(plan, seeds=(7,)), datasets)
    old, new = read_lines(plan.out)
    assert find_edited_line([old, new]) is None
    assert find_edited_line([old.replace(b"[0, 1]", b"[0, 2]"), new]) == 2


def test_a_users_block_belongs_to_the_code(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = "import torch\nclass Mine(torch.nn.Identity):\n    def __init__(self, channels):\n"
    (tmp_path / "registered_block.py").write_text(f"{text}        super().__init__()\n")
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"phi": {"feat1": "registered_block:Mine", "feat2": "se"}}
    setting = replace(plan.settings[0], config=update_config(plan.settings[0].config, changes))
    register(replace(plan, settings=(setting,)), open_tiny(plan))
    code = load_plan_file(plan.out / PLAN_FILE).code
    assert code.blocks.keys() == {"registered_block:Mine"}
