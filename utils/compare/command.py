"""What `compare.py` does with its arguments."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.compare import datasets, workflow
from utils.compare.analysis.comparison import Comparison
from utils.compare.foreign.coco_truth import read_truth
from utils.compare.foreign.trials import make_foreign_plan
from utils.compare.planning.controls import with_controls
from utils.compare.planning.plan import Plan
from utils.compare.planning.request import make_plan
from utils.compare.search import make_search, search
from utils.compare.verification.verify import verify
from utils.core.errors import UserError
from utils.core.overrides import parse_overrides

SEARCH_OPTIONS = ("blocks", "sites", "budget", "finalists", "search_with")
COMPARISON_OPTIONS = ("phi", "settings", "baseline", "control")
# Options that --detections has in common with trainings, and its own
WITH_DETECTIONS = {
    *("detections", "truth", "group", "settings", "seeds", "out", "baseline", "margin", "language"),
    "overrides",
}


def run(args: argparse.Namespace, default: Callable[[str], Any]) -> int:
    """Run the comparison and print its summary.

    Args:
        args: the parsed command line.
        default: returns an option's default.

    Returns:
        The exit status.

    Raises:
        UserError: options contradict each other, or the comparison cannot be made.
    """
    if args.verify is not None:
        _refuse_others(args, default, {"verify", "overrides"}, "--verify reads a finished report")
        found = verify(Path(args.verify), parse_overrides(args.overrides))
        print("\n".join(found.lines()))
        return 1 if found.differences else 0
    _refuse_other_options(args, default)
    command = ["python", "compare.py", *sys.argv[1:]]
    if args.detections:
        comparison = _compare_detections(args, command)
    elif len(args.config) > 1 and not args.search:
        print(f"\n{_compare_datasets(args, command)}")
        return 0
    else:
        plan = (
            _search_finalists(args) if args.search else _make_plan(args, args.config[0], args.out)
        )
        comparison = workflow.compare(plan, command, args.ray, args.language)
    print(f"\n{workflow.summarize(comparison)}")
    return 0


def _make_plan(args: argparse.Namespace, config: str, out: str | None) -> Plan:
    """The plan of a comparison of given settings."""
    for name in SEARCH_OPTIONS:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: belongs to --search")
    settings = make_plan(
        config,
        args.phi,
        args.settings,
        args.seeds,
        out,
        args.baseline,
        args.overrides,
        args.margin,
        args.looks,
    )
    return with_controls(settings, args.control)


def _search_finalists(args: argparse.Namespace) -> Plan:
    """Search; return the plan of the finalists' comparison."""
    for name in COMPARISON_OPTIONS:
        if getattr(args, name):
            raise UserError(f"--{name}: --search finds the settings; leave it out")
    if len(args.config) > 1:
        raise UserError("--search: takes one --config")
    options = {name: getattr(args, name) for name in SEARCH_OPTIONS}
    given = {name: value for name, value in options.items() if value is not None}
    candidates = make_search(
        args.config[0],
        args.seeds,
        args.out,
        args.overrides,
        args.margin,
        looks=args.looks,
        **given,
    )
    return search(candidates, args.ray)


def _compare_detections(args: argparse.Namespace, command: Sequence[str]) -> Comparison:
    """Compare what other programs detected."""
    truth = read_truth(Path(args.truth), args.group)
    plan = make_foreign_plan(
        args.detections,
        truth,
        args.settings,
        args.seeds,
        args.out,
        args.baseline,
        args.margin,
        args.group,
    )
    return workflow.compare_detections(plan, truth, command, args.language)


def _refuse_other_options(args: argparse.Namespace, default: Callable[[str], Any]) -> None:
    """Refuse options that say nothing about detections, or nothing about trainings."""
    if not args.detections:
        for name in ("truth", "group"):
            if getattr(args, name):
                raise UserError(f"--{name}: belongs to --detections, which is not given")
        return
    if not args.truth:
        raise UserError("--detections: needs --truth FILE, the objects of the test images")
    if args.overrides:
        raise UserError(f"{args.overrides[0]}: a key of trainings; --detections compares files")
    _refuse_others(args, default, WITH_DETECTIONS, "--detections compares files")


def _refuse_others(
    args: argparse.Namespace, default: Callable[[str], Any], valid: set[str], reason: str
) -> None:
    for name, value in vars(args).items():
        if name not in valid and value != default(name):
            raise UserError(f"--{name.replace('_', '-')}: cannot be given here; {reason}")


def _compare_datasets(args: argparse.Namespace, command: Sequence[str]) -> str:
    """The same comparison on the dataset of each configuration."""
    if args.looks:
        raise UserError("--looks: takes one --config, as datasets may stop at different looks")
    folders = datasets.folders(args.config, args.out)
    plans = [_make_plan(args, *each) for each in zip(args.config, folders, strict=True)]
    found = datasets.compare_datasets(plans, command, args.ray, args.language)
    return datasets.summarize(found, plans)
