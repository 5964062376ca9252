"""A finished comparison that the tests copy, read, and disturb; detections of other programs."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from matplotlib.figure import Figure

from nets.inference.detections import Detections
from tests.utils.compare.foreign_files import detect, make_truth, write
from utils.compare.analysis.analyze import analyze
from utils.compare.analysis.comparison import Comparison
from utils.compare.foreign.coco_truth import Truth, read_truth
from utils.compare.planning.plan import Plan, Setting, Trial
from utils.compare.planning.record import Entry, read_record
from utils.compare.planning.request import make_plan
from utils.compare.statistics.paired import Interval
from utils.compare.trials import latency
from utils.compare.trials.failures import Failure
from utils.compare.trials.latency import Latency
from utils.compare.trials.results import DETECTIONS, TrialResult, fingerprint, write_detections
from utils.compare.workflow import compare
from utils.core.config import make_config
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset

TINY_TRIAL = (
    "device=cpu",
    "precision=fp32",
    "threads=1",
    "input_size=64",
    "data.shapes_train=12",
    "data.shapes_val=8",
    "train.epochs=2",
    "train.batch_size=4",
    "train.optimizer=sgd",
    "train.save_minutes=1e-6",
)
TIME_COLUMNS = ("latency_ms", "latency_low", "latency_high", "train_seconds")


@pytest.fixture(scope="session")
def tiny_words() -> tuple[str, ...]:
    """Overrides that make a trial take a second."""
    return TINY_TRIAL


@contextmanager
def _fast_reports() -> Iterator[pytest.MonkeyPatch]:
    """No plots, which take longer than the trials, and a short measurement of latency."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda *args, **options: None)
        patch.setattr(latency, "SECONDS", 0.0)
        yield patch


@pytest.fixture(autouse=True)
def fast_reports() -> Iterator[pytest.MonkeyPatch]:
    """For every test of this folder; `undo()` it to plot."""
    with _fast_reports() as patch:
        yield patch


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Plan, Comparison]:
    """`none` and `se` with seeds 0 and 1, undisturbed; only to be read. All workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = base if worker_id == "master" else base.parent
    kept = folder / "finished.pickle"
    with FileLock(folder / "finished.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_finish(folder / "finished")))
    return pickle.loads(kept.read_bytes())


def _finish(out: Path) -> tuple[Plan, Comparison]:
    plan = make_plan(
        "shapes.yaml", ("none", "se"), seeds=(0, 1), out=str(out), overrides=TINY_TRIAL
    )
    with _fast_reports():
        return plan, compare(plan, ["python", "compare.py", "--phi", "none", "se"])


Outcome = float | Failure  # AP in points, or why there is none


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialResult, DetectionDataset]:
    """A trial that nobody trained: its detections are the objects of eight images, moved a bit."""
    config = make_config({"input_size": 64, "data": {"format": "shapes", "shapes_val": 8}})
    split = load_dataset(config.data, "val", config.input_size, progress=False)
    names = split.class_names
    detections = []
    for index, sample in enumerate(split.samples):
        scores = np.linspace(0.9, 0.5, len(sample.boxes), dtype=np.float32)
        boxes = sample.boxes + np.float32(index % 3)
        detections.append(Detections(boxes, scores, sample.labels, names, 64, 64))
    trial = Trial("none", 0, tmp_path_factory.mktemp("untrained"), config)
    write_detections(trial.folder / DETECTIONS, detections)
    classes = dict.fromkeys(names, (30.0, 60.0))
    curve = [{"epoch": 1.0, "loss": 2.0, "map50_95": 0.3}]
    truth = fingerprint(split.samples)
    return TrialResult(trial, 30.0, 60.0, classes, 0.5, 1000, 2.0, 60.0, curve, truth), split


@pytest.fixture
def scored(
    untrained: tuple[TrialResult, DetectionDataset], tmp_path: Path
) -> Callable[..., Comparison]:
    """`scored(none=[...], se=[...])`: a comparison as if seeds 0, 1, ... gave these AP."""
    result, split = untrained

    def make(
        history: Sequence[Entry] | None = None,
        margin: float | None = None,
        looks: tuple[int, ...] = (),
        stops: Mapping[tuple[str, str], int] | None = None,
        **outcomes: Sequence[Outcome],
    ) -> Comparison:
        record = read_record(tmp_path) if history is None else history
        settings = [Setting(name, name, result.trial.config) for name in outcomes]
        seeds = tuple(range(max(map(len, outcomes.values()))))
        plan = Plan(tmp_path, "shapes", tuple(settings), seeds, next(iter(outcomes)), margin)
        plan = replace(plan, looks=looks, stops=stops or {})
        results, failed = [], {}
        for name, values in outcomes.items():
            for seed, value in enumerate(values):
                if isinstance(value, Failure):
                    failed[name, seed] = value
                else:
                    trial = replace(result.trial, setting=name, seed=seed)
                    results.append(replace(result, trial=trial, ap=value))
        splits = {each.trial.setting: split for each in results}
        latency = dict.fromkeys(splits, Latency(1.0, Interval(0.9, 1.2)))
        return analyze(plan, results, failed, latency, splits, record, resamples=10)

    return make


@pytest.fixture
def copied(finished: tuple[Plan, Comparison], tmp_path: Path) -> Plan:
    """The same comparison in a folder of the test's own."""
    out = tmp_path / "copy"
    shutil.copytree(finished[0].out, out, copy_function=_copy)
    return replace(finished[0], out=out)


def _copy(source: str, target: str) -> None:
    """Checkpoints are large and never written in place, so a link is enough."""
    (os.link if source.endswith(".pt") else shutil.copy2)(source, target)


@pytest.fixture(scope="session")
def tables() -> Callable[[Path], list[list[str]]]:
    """`tables(out)`: the rows of results.csv and trials.csv without the columns that are times."""
    return _read_tables


def _read_tables(out: Path) -> list[list[str]]:
    rows = []
    for name in ("results.csv", "trials.csv"):
        lines = [line.split(",") for line in (out / name).read_text(encoding="utf-8").splitlines()]
        columns = [index for index, head in enumerate(lines[0]) if head not in TIME_COLUMNS]
        rows += [[line[index] for index in columns] for line in lines]
    return rows


@pytest.fixture(scope="module")
def content() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO file of objects, and one of detections."""
    generator = np.random.default_rng(3)
    truth = make_truth(generator)
    return truth, detect(truth, generator, 2.0)


@pytest.fixture
def truth(content: tuple[dict[str, Any], Any], tmp_path: Path) -> Truth:
    """The objects in a file."""
    return read_truth(write(tmp_path / "instances.json", content[0]))


@pytest.fixture
def folder(content: tuple[dict[str, Any], Any], tmp_path: Path) -> Path:
    """`b` detects better than `a`; three seeds, of which `a` lacks one."""
    for name, noise in (("a", 6.0), ("b", 2.0)):
        for seed in range(3 if name == "b" else 2):
            entries = detect(content[0], np.random.default_rng(seed), noise + seed / 10)
            write(tmp_path / "dets" / name / f"seed-{seed}.json", entries)
    return tmp_path / "dets"
