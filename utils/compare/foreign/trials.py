"""Detections of other programs as trials: `DIR/<setting>/seed-<n>.json` and what is known of them.

Each file is read, scored, and stored as the trial's `detections.npz` and `trial.json`, so that the
statistics and the report are those of trainings.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.compare.foreign.coco_detections import ForeignDetections, read_detections
from utils.compare.foreign.coco_truth import Truth
from utils.compare.planning.facts import Facts, Foreign
from utils.compare.planning.plan import Plan, Setting, Trial
from utils.compare.planning.request import check_margin, check_seeds, find_baseline
from utils.compare.planning.settings import distinct, folder_name
from utils.compare.statistics.paired import NO_INTERVAL
from utils.compare.trials.failures import Failure
from utils.compare.trials.latency import Latency
from utils.compare.trials.results import (
    DETECTIONS,
    DONE,
    TrialResult,
    fingerprint,
    read_result,
    write_detections,
)
from utils.core.config import make_config, read_yaml
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import is_file, is_folder, list_folder
from utils.core.validation import validate
from utils.engine.report import write_json
from utils.engine.runs import LAST
from utils.metrics import evaluate

FACTS_FILE = "settings.yaml"
SEED_FILE = re.compile(r"seed-([0-9]{1,9})\.json")

Files = Mapping[str, Mapping[int, Path]]  # setting -> seed -> file
# By (setting, seed)
Contents = dict[tuple[str, int], ForeignDetections]
Missing = dict[tuple[str, int], Failure]


def make_foreign_plan(
    folder: str,
    truth: Truth,
    facts_file: str | None = None,
    seeds: Sequence[str] | None = None,
    out: str | None = None,
    baseline: str | None = None,
    margin: float | None = None,
    group: str | None = None,
) -> Plan:
    """Find the files and check what is said of their settings.

    Args:
        folder: holds a folder for each setting.
        truth: the test images.
        facts_file: YAML file, name of a setting -> `Facts`; None: `settings.yaml` in `folder`, if
            there is one.
        seeds: the seeds to compare; None: all that any setting has.
        out: folder of the report; None: `runs/compare-<folder>`.
        baseline: name of a setting; None: `none` if there is one, else the first by name.
        margin: differences of fewer AP points do not matter; None: not declared.
        group: key of the images by which `truth` was read.

    Raises:
        UserError: a folder or a file is not as expected.
    """
    files = _find_files(Path(folder))
    facts = _read_facts(Path(folder), facts_file, files, truth)
    config = make_config({})
    settings = []
    for name in files:
        control_of = facts[name].control_of
        settings.append(Setting(name, folder_name(name), config, control_of=control_of))
    name = Path(folder).resolve().name
    found = sorted(set().union(*files.values()))
    plan = Plan(
        out=Path(out or f"runs/compare-{name}"),
        config_name=name,
        settings=distinct(settings),
        seeds=check_seeds(seeds or found),
        baseline=find_baseline(baseline, settings),
        margin=check_margin(margin),
        foreign=Foreign(folder, str(truth.path), files, facts, group),
    )
    if Path(folder).resolve() in (plan.out.resolve(), *plan.out.resolve().parents):
        raise UserError(f"--out {plan.out}: lies in --detections {folder}: give another folder")
    return plan


def _find_files(folder: Path) -> Files:
    if not is_folder(folder):
        raise UserError(f"--detections {folder}: no such folder")
    files = {}
    for name in list_folder(folder):
        if not name.startswith(".") and is_folder(folder / name):
            if not name.isprintable():
                raise UserError(f"--detections {folder}: {name!r} cannot be a setting's name")
            files[name] = _find_seeds(folder / name)
    if len(files) < 2:
        raise UserError(
            f"--detections {folder}: expected a folder for each of at least two settings, found"
            f" {len(files)}"
        )
    return files


def _find_seeds(folder: Path) -> dict[int, Path]:
    seeds: dict[int, Path] = {}
    for name in list_folder(folder):
        match = SEED_FILE.fullmatch(name)
        if match and int(match[1]) not in seeds:
            seeds[int(match[1])] = folder / name
        elif name.lower().endswith(".json"):
            raise UserError(
                f"{folder / name}: expected one seed-<n>.json for each seed, such as seed-0.json"
            )
    if not seeds:
        raise UserError(f"{folder}: expected detections in seed-<n>.json, found none")
    return seeds


def _read_facts(folder: Path, file: str | None, names: Files, truth: Truth) -> dict[str, Facts]:
    path = Path(file or folder / FACTS_FILE)
    values: dict[str, Any] = {}
    if file or is_file(path):
        values = {str(key): value for key, value in read_yaml(path).items()}
    facts = dict.fromkeys(names, Facts())
    for name, own in values.items():
        origin = f"{path}: {shorten(name)}"
        if name not in facts:
            raise UserError(f"{origin}: no such setting{nearest(name, names)}")
        for key in own if isinstance(own, dict) else ():
            if key not in Facts.model_fields:
                hint = nearest(str(key), Facts.model_fields)
                raise UserError(f"{origin}: unknown key '{shorten(str(key))}'{hint}")
        facts[name] = validate(Facts, own or {}, origin)
        _check_names(facts[name], name, names, truth, origin)
    return facts


def _check_names(facts: Facts, name: str, names: Files, truth: Truth, origin: str) -> None:
    control_of = facts.control_of
    if control_of is not None and (control_of not in names or control_of == name):
        others = [other for other in names if other != name]
        raise UserError(f"{origin}: control_of: no other setting{nearest(control_of, others)}")
    for category in (facts.categories or {}).values():
        if category not in truth.class_names:
            hint = nearest(category, truth.class_names)
            raise UserError(
                f"{origin}: categories: '{shorten(category)}' is no category of {truth.path}{hint}"
            )


def read_files(plan: Plan, truth: Truth) -> tuple[Plan, Contents, Missing]:
    """Read all files.

    Returns:
        The plan with what a reader should know of the files, their contents, and what is missing.

    Raises:
        UserError: a file is not as expected.
    """
    foreign = plan.foreign
    assert foreign is not None
    contents: Contents = {}
    missing: Missing = {}
    for trial in plan.trials:
        path = foreign.files[trial.setting].get(trial.seed)
        if path is None:
            name = f"{foreign.folder}/{trial.setting}/seed-{trial.seed}.json"
            missing[trial.setting, trial.seed] = Failure("missing", f"no file {name}")
            continue
        categories = foreign.facts[trial.setting].categories
        contents[trial.setting, trial.seed] = read_detections(path, truth, categories)
    if not contents:
        raise UserError(f"--seeds: no setting in {foreign.folder} has a file for any of them")
    foreign = replace(
        foreign,
        uncounted=sum(each.dropped for each in contents.values()),
        remarks=(*_missing_remarks(plan, missing), *_remarks(contents)),
    )
    return replace(plan, foreign=foreign), contents, missing


def import_trials(plan: Plan, truth: Truth) -> tuple[Plan, list[TrialResult], Missing]:
    """Score all files, and store them as trials in the comparison's folder.

    Returns:
        The plan with what a reader should know of the files, the results, and what is missing.

    Raises:
        UserError: a file is not as expected, or the folder holds trainings.
    """
    plan, contents, missing = read_files(plan, truth)
    assert plan.foreign is not None
    results = []
    for trial in plan.trials:
        if (trial.setting, trial.seed) in contents:
            facts = plan.foreign.facts[trial.setting]
            path = plan.foreign.files[trial.setting][trial.seed]
            _write_trial(trial, contents[trial.setting, trial.seed], facts, truth, path)
            results.append(read_result(trial, has_curve=False))
    return plan, results, missing


def _write_trial(
    trial: Trial, content: ForeignDetections, facts: Facts, truth: Truth, path: Path
) -> None:
    if (trial.folder / LAST).exists():
        raise UserError(f"{trial.folder} holds a training: give another --out")
    metrics = evaluate(truth.samples, content.detections, truth.class_names).to_json()
    write_detections(trial.folder / DETECTIONS, content.detections)
    record = {
        "setting": trial.setting,
        "seed": trial.seed,
        "truth": fingerprint(truth.samples),
        "train_seconds": facts.train_seconds,
        "alone": True,  # nothing else is known
        "source": str(path),
        "metrics": {**metrics, "params": facts.params, "gflops": facts.gflops},
    }
    write_json(trial.folder / DONE, record)


def given_latency(plan: Plan) -> dict[str, Latency]:
    """Setting -> its latency as given, NaN if it is not."""
    facts = plan.foreign.facts if plan.foreign else {}
    latency = {}
    for name, own in facts.items():
        latency[name] = Latency(np.nan if own.latency_ms is None else own.latency_ms, NO_INTERVAL)
    return latency


def _missing_remarks(plan: Plan, missing: Mapping[tuple[str, int], Failure]) -> list[str]:
    remarks = []
    for name, count in Counter(name for name, _ in missing).items():
        seeds = ", ".join(str(seed) for other, seed in missing if other == name)
        shown = f"seed {seeds}" if count == 1 else f"seeds {seeds}"
        remarks.append(
            f"There is no file of {name} for {shown}: left out of all differences. If a training"
            " diverged, its file should be an empty list, [], which counts as 0 AP."
        )
    return remarks


def _remarks(contents: Contents) -> list[str]:
    """What is odd about the files of a setting."""
    remarks = []
    by_name: dict[str, list[ForeignDetections]] = {}
    for (name, _), content in contents.items():
        by_name.setdefault(name, []).append(content)
    for name, files in by_name.items():
        repeated = sum(each.repeated for each in files)
        if repeated:
            remarks.append(
                f"{repeated:,} detections of {name} repeat another one exactly: they count as"
                " false positives, as in pycocotools."
            )
        if any(each.is_ambiguous for each in files):
            remarks.append(
                f"The image ids of {name} are also names of other images; they were read as ids."
            )
        if any(each.are_boxes_odd for each in files):
            remarks.append(
                f"The best boxes of {name} lie outside of many images, or all are tiny: COCO's are"
                " x, y, width, height in pixels."
            )
        if any(each.are_classes_odd for each in files):
            remarks.append(
                f"Most objects that {name} finds are of another category than it says: do its"
                f" category ids mean the same? {FACTS_FILE} can map them."
            )
    return remarks
