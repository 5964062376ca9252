"""Compare settings over several seeds: which is better, by how much, how certainly, at what cost.

examples:
  python compare.py --config shapes.yaml              none se cbam eca, seeds 0 to 5
  python compare.py --config neu_det.yaml --phi none se cbam eca --seeds 0 1 2 3 4 5
  python compare.py --config voc.yaml --phi none se --control params
                                                      and a convolution of the same size as se
  python compare.py --config neu_det.yaml --looks 5 8 12 20 --margin 1
                                                      stop what has a verdict, train on the others
  python compare.py --config shapes.yaml --settings placements.yaml --baseline plain train.epochs=30
  python compare.py --config neu_det.yaml bccd.yaml --phi none se
                                                      on two datasets, and over both
  python compare.py --config voc.yaml --phi none se --ray          on all cores or GPUs
  python compare.py --config voc.yaml --phi none se --ray auto     on a running Ray cluster
  python compare.py --config neu_det.yaml --search --budget 200 --margin 1
                                                      which block? the best three are compared
  python compare.py --config voc.yaml --search --blocks se eca cbam --sites all --budget 100 \\
      --search-with train.epochs=5 input_size=320     which site? candidates are trained for less
  python compare.py --detections DIR --truth instances.json        of any detectors
  python compare.py --verify runs/compare-voc         the results, again from the detections

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

from utils.core.arguments import OVERRIDE, CommandParser, integer, separate_overrides
from utils.core.cli import run_command


def make_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = CommandParser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--verify",
        metavar="DIR",
        help="compute all scores, statistics and verdicts of the report in this folder again, from "
        "the stored detections, and print what differs (exit code 1); data.root=... if the data "
        "has moved",
    )
    source.add_argument(
        "--config",
        nargs="+",
        metavar="NAME|PATH",
        help="the experiment that all settings share; several: the same comparison on several "
        "datasets, and what holds on average over them",
    )
    source.add_argument(
        "--detections",
        metavar="DIR",
        help="compare what other programs detected: <setting>/seed-<n>.json in COCO's results "
        "format; docs/any_detector.md",
    )
    parser.add_argument(
        "--truth", metavar="FILE", help="--detections: the objects of the test images, COCO JSON"
    )
    parser.add_argument(
        "--group",
        metavar="KEY",
        help="--detections: key of an image in --truth that tells which belong together, or none; "
        "default: video_id, if all have one",
    )
    parser.add_argument(
        "--phi",
        nargs="+",
        default=[],
        metavar="PHI",
        help="attention settings; default: none se cbam eca",
    )
    parser.add_argument(
        "--settings",
        "--variants",
        metavar="FILE",
        help="YAML file: name -> overrides; with --detections, name -> what it costs",
    )
    parser.add_argument(
        "--seeds",
        "--confirm-seeds",
        nargs="+",
        metavar="N",
        help="default: 0 1 2 3 4 5, or all in --detections; with more than two settings, a verdict "
        "needs five; with --search, the seeds of the finalists' comparison",
    )
    parser.add_argument(
        "--looks",
        nargs="+",
        default=[],
        metavar="N",
        help="numbers of seeds, such as 5 8 12 20: look at the results after each, and train on "
        "only what has no verdict yet; declare them before any result is shown",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="default: runs/compare-<config>; with --search runs/search-<config>, with "
        "--detections runs/compare-<DIR>",
    )
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
    add_search_options(parser)
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
    parser.add_overrides("for all settings, e.g. train.epochs=10")
    return parser


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Options that belong to `--search`."""
    parser.add_argument(
        "--search",
        action="store_true",
        help="try many settings on a held-out part of the training images, the better ones with "
        "more seeds, and compare the best of them: on new seeds, on the test images, with none and "
        "a control of the first",
    )
    parser.add_argument(
        "--blocks", nargs="+", metavar="NAME", help="blocks to search among; default: all"
    )
    parser.add_argument(
        "--sites",
        nargs="+",
        metavar="SITE",
        help="sites to search among, one at a time; all: every one; default (the default): the "
        "sites of attention.at together",
    )
    parser.add_argument(
        "--budget",
        type=integer(1, 1_000_000),
        metavar="TRIALS",
        help="trainings of the search, one per seed for none not counted; default: two for each "
        "block at each site",
    )
    parser.add_argument(
        "--finalists",
        type=integer(1, 100),
        metavar="N",
        help="settings that are compared after the search; default: 3",
    )
    parser.add_argument(
        "--search-with",
        nargs="+",
        metavar="KEY=VALUE",
        help="keys for the search alone, e.g. train.epochs=5",
    )


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    args = make_parser().parse_intermixed_args(words)
    separate_overrides(args, "config", "phi", "seeds", "looks", "blocks", "sites")
    if args.ray and OVERRIDE.match(args.ray):
        args.overrides.insert(0, args.ray)
        args.ray = "local"
    return args


def main() -> None:
    """Parse the arguments and run the comparison."""
    args = parse()
    # imported here, where `run_command` explains a missing library
    from utils.compare.command import run

    sys.exit(run(args, make_parser().get_default))


if __name__ == "__main__":
    run_command(main)
