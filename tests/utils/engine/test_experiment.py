"""From a configuration to a finished run, whatever the data, and what is refused before it."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nets.io import checkpoints
from tests.utils.engine.run_files import assert_equal, weights
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.data.dataset import DetectionDataset
from utils.data.dataset_report import DatasetReport
from utils.data.sample import Sample
from utils.engine.experiment import Result, train
from utils.engine.runs import BEST, LAST

PLOTS = ("curves.png", "pr.png", "confusion.png", "batch.png", "predictions.png")


def test_a_run_is_complete(trained: Result):
    # hidden: the lock, and exported models that other tests keep there
    names = {path.name for path in trained.run.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", BEST, LAST, "results.csv", "metrics.json", *PLOTS}
    for name in PLOTS:
        assert (trained.run / name).read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((trained.run / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and all(
        math.isfinite(float(row["loss"])) for row in rows
    )
    numbers = json.loads((trained.run / "metrics.json").read_text())
    assert numbers["map50_95"] == pytest.approx(
        float(max(rows, key=lambda row: float(row["map50_95"]))["map50_95"]), abs=1e-6
    )


def test_config_yaml_alone_repeats_the_run(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = load_config(trained.run / "config.yaml")
    assert config == Config.model_validate(checkpoints.load(trained.run / BEST)["config"])
    again = train(config)
    assert again.run == trained.run.with_name(f"{trained.run.name}-2")
    assert_equal(weights(again.run / BEST), weights(trained.run / BEST))
    assert_equal(weights(again.run / LAST), weights(trained.run / LAST))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def samples(objects: Sequence[Sequence[tuple[float, ...]]]) -> list[Sample]:
    """A drawn image of 70x50 for each list of (x1, y1, x2, y2, label)."""
    made = []
    for index, rows in enumerate(objects):
        table = np.array(rows, np.float32).reshape(-1, 5)
        made.append(
            Sample(
                path=Path(f"{index}.png"),
                width=70,
                height=50,
                boxes=table[:, :4],
                labels=table[:, 4].astype(np.int64),
                difficult=np.zeros(len(table), np.bool_),
                crowd=np.zeros(len(table), np.bool_),
                draw=partial(noise, index),
            )
        )
    return made


SMALL, LARGE, POINT = (5, 5, 15, 20, 0), (0, 0, 70, 50, 0), (30, 30, 31, 31, 0)


@pytest.mark.parametrize(
    ("objects", "names", "keys"),
    [
        ([[SMALL], [], [LARGE, SMALL], [], [], []], ("a", "b"), ()),
        ([[], [], [], []], ("a", "b"), ()),
        ([[SMALL], [LARGE], [SMALL, LARGE], [SMALL]], ("only",), ()),
        ([[SMALL], [POINT], [(*LARGE[:4], 1)]], ("a", "b"), ("train.batch_size=64",)),
        ([[POINT, POINT, LARGE]], ("a", "b"), ("augment.mixup=1",)),
    ],
    ids=["some-empty", "no-object", "one-class", "batch-beyond-data", "one-image"],
)
def test_unusual_data_gives_no_nan(
    objects,
    names: tuple[str, ...],
    keys: tuple[str, ...],
    tiny: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
):
    made = samples(objects)

    def load_dataset(*args: object, **options: object) -> DetectionDataset:
        report = DatasetReport()
        report.summarize(made, names)
        return DetectionDataset(made, (64, 64), report=report, class_names=names)

    monkeypatch.setattr("utils.engine.datasets.load_dataset", load_dataset)
    result = train(tiny(*keys))
    rows = list(csv.DictReader((result.run / "results.csv").open()))
    assert all(
        math.isfinite(float(row[key]))
        for row in rows
        for key in ("loss", "box", "objectness", "cls")
    )
    for name in (BEST, LAST):
        assert all(tensor.isfinite().all() for tensor in weights(result.run / name).values())
    numbers = json.loads(
        (result.run / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert (numbers["map50"] is None) == (not any(objects)) and list(numbers["per_class"]) == list(
        names
    )
    assert "nan" not in result.evaluation.metrics.table()
    assert (result.run / "predictions.png").is_file()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("precision=fp16", "needs a GPU"),
        ("device=cuda:7", "CUDA devices"),
        ("phi=cbm", "did you mean 'cbam'"),
        ("attention.at=[feat3]", "did you mean 'feat"),
        ("weights=missing.pt", r"missing\.pt: no such file"),
    ],
)
def test_mistakes_are_told_before_the_data_is_read(
    key: str, words: str, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    def read(*args: object) -> None:
        pytest.fail("the data was read first")

    monkeypatch.setattr("utils.engine.experiment.open_datasets", read)
    with pytest.raises(UserError, match=words):
        train(tiny(*(("phi=se",) if "attention" in key else ()), key))
    assert not Path("runs").exists()
