"""A comparison from its plan to its report."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from utils.compare.analysis.analyze import analyze, find_verdicts
from utils.compare.analysis.comparison import Comparison
from utils.compare.foreign.coco_truth import Truth
from utils.compare.foreign.trials import given_latency, import_trials
from utils.compare.planning.plan import Plan, Trial
from utils.compare.planning.record import (
    Entry,
    append_look,
    check_declared_looks,
    read_record,
    with_declared_margin,
)
from utils.compare.planning.registration import Registration, register
from utils.compare.reporting.phrases import looks_sentence, sentence, spread
from utils.compare.reporting.report import write_report
from utils.compare.reporting.translation import Language
from utils.compare.statistics.paired import NO_VERDICT
from utils.compare.trials.failures import Failure, read_failure
from utils.compare.trials.latency import measure_latency
from utils.compare.trials.ray_cluster import check_ray
from utils.compare.trials.results import TrialResult, read_result
from utils.compare.trials.running import SharedData, read_state, run_trial
from utils.compare.trials.worker_pool import run_on_cluster
from utils.core.errors import UserError
from utils.core.folder_lock import locked
from utils.core.progress import duration

OLD_TRIALS = "cells"  # the folder of the trials in earlier versions


def compare(
    plan: Plan, command: Sequence[str], ray: str | None = None, language: Language = "en"
) -> Comparison:
    """Run the missing trials, analyze all of them, and write the report, at every declared look.

    Args:
        plan: what to compare.
        command: words of the command line, which the report shows.
        ray: address of a Ray cluster, or `local`, to run the trials in parallel;
            None: one after the other in this process.
        language: language of the report's words.

    Raises:
        UserError: the folder holds other trainings or is in use; the data is missing; the cluster
            cannot be joined; no trial finished.
    """
    if ray is not None:
        check_ray(ray, plan)
    make_folder(plan.out)
    with locked(plan.out, "compare.py is working", "wait, or give another --out"):
        plan = with_declared_margin(plan)
        check_declared_looks(plan)
        data = SharedData()
        registration = prepare(plan, data)

        def report(shown: Plan) -> Comparison:
            return _report(shown, registration, data, command, language)

        try:
            if plan.looks:
                return _run_looks(plan, data, ray, report)
            run_missing(plan, data, ray)
        except KeyboardInterrupt:
            print("the same command resumes the comparison")
            raise
        return report(plan)


def make_folder(out: Path) -> None:
    """Make the folder of a comparison.

    Raises:
        UserError: it cannot be made, or an earlier version made it.
    """
    if (out / OLD_TRIALS).is_dir():
        raise UserError(f"{out} was made by an earlier version of compare.py: give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make this folder: {error.strerror}") from None


def _run_looks(
    plan: Plan, data: SharedData, ray: str | None, report: Callable[[Plan], Comparison]
) -> Comparison:
    """Train up to each look whatever has no verdict yet, until all have one or no look is left.

    Which comparisons had a verdict follows from the trials alone, so that an interrupted command
    repeats the same looks.
    """
    before = 0
    stops: dict[tuple[str, str], int] = {}
    for number, seeds in enumerate(plan.looks, start=1):
        look = replace(plan, seeds=plan.seeds[:seeds], stops=stops)
        running = [each for each in plan.settings if len(look.seeds_of(each.name)) == seeds]
        print(f"look {number} of {len(plan.looks)}, {seeds} seeds, {len(running)} settings:")
        part = replace(plan, seeds=plan.seeds[before:seeds], settings=tuple(running))
        trained = run_missing(part, data, ray)
        stops = find_stops(look, *_read_trials(look), read_record(plan.out))
        is_last = seeds == plan.looks[-1] or len(stops) == len(plan.pairs)
        if trained or is_last:  # not again what an interrupted command has shown
            comparison = report(replace(look, stops=stops))
        if is_last:
            break
        if trained:
            print(f"\n{summarize(comparison)}\n")
        before = seeds
    return comparison


def find_stops(
    look: Plan,
    results: Sequence[TrialResult],
    failed: Mapping[tuple[str, int], Failure],
    record: Sequence[Entry],
) -> dict[tuple[str, str], int]:
    """(setting, reference) -> number of seeds at the look that gave a verdict, up to this one."""
    verdicts = find_verdicts(look, results, failed, record)
    found = [pair for pair, verdict in verdicts.items() if verdict not in NO_VERDICT]
    return {**dict.fromkeys(found, len(look.seeds)), **look.stops}


def prepare(plan: Plan, data: SharedData) -> Registration:
    """Check the folder and the data, and write down the plan, before the first trial.

    Raises:
        UserError: the folder holds other trainings, or a plan that was edited; the data is missing.
    """
    # fails on a folder of other trainings before any work
    states = [read_state(trial) for trial in plan.trials]
    datasets = data.load(plan.settings[0].config)  # bad data fails here, once
    registration = register(plan, datasets, all(state == "finished" for state in states))
    print(f"plan: {plan.out / registration.file}, SHA-256 {registration.sha256}")
    return registration


def run_missing(plan: Plan, data: SharedData, ray: str | None) -> bool:
    """Run the trials that are not finished; return whether there were any.

    Args:
        plan: the settings and seeds to train now, of a plan that was prepared.
        data: its data.
        ray: as for `compare`.

    Raises:
        UserError: the cluster cannot be joined.
    """
    finished = [trial for trial in plan.trials if read_state(trial) == "finished"]
    print(f"{len(plan.trials)} trials, {len(finished)} of them already finished")
    if ray is None:
        run_trials(plan.trials, finished, data)
    else:
        datasets = data.load(plan.settings[0].config)
        run_on_cluster(ray, plan, finished, (len(datasets.train), len(datasets.val)))
    return len(finished) < len(plan.trials)


def run_trials(trials: Sequence[Trial], finished: Sequence[Trial], data: SharedData) -> None:
    """Run every trial that is not finished, one after the other, and print the time left."""
    durations = [read_result(trial).train_seconds for trial in finished]
    missing = [trial for trial in trials if trial not in finished]
    for index, trial in enumerate(missing):
        left = ""
        if durations:
            mean = sum(durations) / len(durations)
            left = f", about {duration(mean * (len(missing) - index))} left"
        print(f"\n[{len(finished) + index + 1}/{len(trials)}] {trial}{left}")
        start = time.monotonic()
        new = read_state(trial) == "new"
        if not run_trial(trial, data):
            print(f"failed: {read_failure(trial.folder).reason}; continuing with the others")
        elif new:
            durations.append(time.monotonic() - start)
        else:
            durations.append(read_result(trial).train_seconds)


def _read_trials(plan: Plan) -> tuple[list[TrialResult], dict[tuple[str, int], Failure]]:
    """The results of finished trials, and (setting, seed) -> why a trial failed."""
    results = []
    failed = {}
    for trial in plan.trials:
        state = read_state(trial)
        if state == "finished":
            results.append(read_result(trial))
        elif state == "failed":
            failed[trial.setting, trial.seed] = read_failure(trial.folder)
    return results, failed


def _report(
    plan: Plan,
    registration: Registration,
    data: SharedData,
    command: Sequence[str],
    language: Language,
) -> Comparison:
    results, failed = _read_trials(plan)
    if not results:
        first = next(iter(failed.values()))
        raise UserError(f"no trial finished; the first error: {first.reason}")
    first_trials: dict[str, Trial] = {}  # a finished one of each setting
    for result in results:
        first_trials.setdefault(result.trial.setting, result.trial)
    splits = {name: data.load(trial.config).final for name, trial in first_trials.items()}
    sample = next(iter(splits.values())).samples[0]
    latency = measure_latency(plan.out, list(first_trials.values()), sample.read_image())
    comparison = analyze(plan, results, failed, latency, splits, read_record(plan.out))
    return _publish(replace(comparison, registration=registration), command, language)


def _publish(comparison: Comparison, command: Sequence[str], language: Language) -> Comparison:
    """Record the look at these results, and write the report."""
    out = comparison.plan.out
    append_look(out, comparison.plan, comparison.tests)
    write_report(out, comparison, shlex.join(command), language)
    return comparison


def compare_detections(
    plan: Plan, truth: Truth, command: Sequence[str], language: Language = "en"
) -> Comparison:
    """Compare foreign detections by the same statistics, and write the same report.

    Args:
        plan: what to compare, with the files.
        truth: the test images.
        command: words of the command line, which the report shows.
        language: language of the report's words.

    Raises:
        UserError: a file is not as expected, or the folder holds trainings or is in use.
    """
    make_folder(plan.out)
    with locked(plan.out, "compare.py is working", "wait, or give another --out"):
        plan = with_declared_margin(plan)
        check_declared_looks(plan)
        registration = register(plan, None)
        plan, results, missing = import_trials(plan, truth)
        splits = {result.trial.setting: truth for result in results}
        latency, record = given_latency(plan), read_record(plan.out)
        comparison = analyze(plan, results, missing, latency, splits, record, groups=truth.groups)
        return _publish(replace(comparison, registration=registration), command, language)


def summarize(comparison: Comparison) -> str:
    """What the command line prints at the end."""
    lines = [
        f"{setting.name:24} AP {spread(setting.ap)}  AP50 {spread(setting.ap50)}"
        for setting in comparison.settings
    ]
    lines.append("")
    lines += [sentence(pair) for pair in comparison.pairs]
    for (name, seed), failure in comparison.failed.items():
        kind = "missing" if failure.kind == "missing" else "failed"
        lines.append(f"{kind}: {name}, seed {seed}: {failure.reason}")
    if comparison.plan.foreign:
        lines += [f"note: {remark}" for remark in comparison.plan.foreign.remarks]
    if comparison.plan.looks:
        lines.append(looks_sentence(comparison))
    lines.append("")
    report = comparison.plan.out / "report.html"
    lines.append(f"report: {report} (report.md, report.tex and tables beside it)")
    return "\n".join(lines)
