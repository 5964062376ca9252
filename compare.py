"""Compare settings over several seeds: which is better, by how much, how certainly, at what cost.

examples:
  python compare.py --config shapes.yaml              none se cbam eca, seeds 0 to 5
  python compare.py --config neu_det.yaml --phi none se cbam eca --seeds 0 1 2 3 4 5
  python compare.py --config voc.yaml --phi none se --control params
                                                      and a convolution of the same size as se
  python compare.py --config shapes.yaml --settings placements.yaml --baseline plain train.epochs=30
  python compare.py --config voc.yaml --phi none se --ray          on all cores or GPUs
  python compare.py --config voc.yaml --phi none se --ray auto     on a running Ray cluster

A file for --settings maps names to overrides, nested or dotted; `{}` changes nothing:
  plain: {}
  se at feat1: {phi: se, attention.at: [feat1]}
  se as identity: {phi: se, attention: {init: identity}}

With --ray, all machines of a cluster must see the project, the data and --out at the same paths (a
network file system) and have the same libraries installed.

The same command resumes an interrupted comparison and retries failed trials.
"""

import argparse
import sys
from collections.abc import Sequence

from utils.core.arguments import OVERRIDE, CommandParser, separate_overrides
from utils.core.cli import run_command


def make_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--config",
        metavar="NAME|PATH",
        required=True,
        help="the experiment that all settings share",
    )
    parser.add_argument(
        "--phi",
        nargs="+",
        default=[],
        metavar="PHI",
        help="attention settings; default: none se cbam eca",
    )
    parser.add_argument(
        "--settings", "--variants", metavar="FILE", help="YAML file: name -> overrides"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        default=[str(seed) for seed in range(6)],
        metavar="N",
        help="default: 0 1 2 3 4 5; with more than two settings, a verdict needs five",
    )
    parser.add_argument("--out", metavar="DIR", help="default: runs/compare-<config>")
    parser.add_argument("--baseline", metavar="NAME", help="default: none, else the first setting")
    parser.add_argument(
        "--margin",
        type=float,
        metavar="AP",
        help="points; smaller differences do not matter to you: settings can then be found "
        "practically equal. Declare it before any result is shown",
    )
    parser.add_argument(
        "--control",
        choices=["params", "latency"],
        help="add to every attention setting a control: plain convolutions with the same number "
        "of parameters, or the same latency",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run trials in parallel: on this machine, or on a cluster "
        "(auto, host:6379, ray://host:10001)",
    )
    parser.add_argument(
        "--language", choices=["en", "zh"], default="en", help="of the report; default: en"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="for all settings, e.g. train.epochs=10"
    )
    return parser


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    args = make_parser().parse_intermixed_args(words)
    separate_overrides(args, "phi", "seeds")
    if args.ray and OVERRIDE.match(args.ray):
        args.overrides.insert(0, args.ray)
        args.ray = "local"
    return args


def main() -> None:
    """Parse the arguments, run the comparison, and print its summary."""
    args = parse()
    # imported here, where `run_command` explains a missing library
    from utils.compare.controls import with_controls
    from utils.compare.plan import make_plan
    from utils.compare.workflow import compare, summarize

    plan = make_plan(
        args.config,
        args.phi,
        args.settings,
        args.seeds,
        args.out,
        args.baseline,
        args.overrides,
        args.margin,
    )
    plan = with_controls(plan, args.control)
    comparison = compare(plan, ["python", "compare.py", *sys.argv[1:]], args.ray, args.language)
    print(f"\n{summarize(comparison)}")


if __name__ == "__main__":
    run_command(main)
