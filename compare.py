"""Compare settings over several seeds: which is better, by how much, how sure, and at what price.

examples:
  python compare.py --config shapes.yaml                                  none se cbam eca, seeds 0 1 2
  python compare.py --config neu_det.yaml --phi none se cbam eca --seeds 0 1 2 3 4 5
  python compare.py --config voc.yaml --phi none se --control params      beside se a convolution of the same size
  python compare.py --config shapes.yaml --variants placements.yaml --baseline plain train.epochs=30
  python compare.py --config voc.yaml --phi none se --ray                     side by side, on all cores or GPUs
  python compare.py --config voc.yaml --phi none se --ray auto                on a running Ray cluster

A file for --variants maps names to overrides, nested or dotted; `{}` is the configuration as it is:
  plain: {}
  se at feat1: {phi: se, attention.at: [feat1]}
  se as identity: {phi: se, attention: {init: identity}}

--ray needs `pip install -r requirements-ray.txt`. All machines of a cluster must see the project, the data and --out
under the same paths (a network file system), and have the same libraries.

The same command goes on with an interrupted comparison and tries failed trainings again.
"""

import argparse
import sys

from utils.core.cli import run_command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--variants", metavar="FILE", help="YAML file: name -> overrides")
    parser.add_argument(
        "--seeds", nargs="+", default=["0", "1", "2"], metavar="N", help="default: 0 1 2"
    )
    parser.add_argument("--out", metavar="DIR", help="default: runs/compare-<config>")
    parser.add_argument("--baseline", metavar="NAME", help="default: none, else the first setting")
    parser.add_argument(
        "--control",
        choices=["params", "latency"],
        help="beside every attention setting, plain convolution of as many parameters, or milliseconds",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="trainings side by side: on this machine, or on a cluster (auto, host:6379, ray://host:10001)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="for all settings, e.g. train.epochs=10"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse()
    from utils.compare.controls import (
        with_controls,
    )  # here, where `run_command` tells of a missing library
    from utils.compare.plan import make_plan, ray_address, split_overrides, whole_numbers
    from utils.compare.running import compare, summary

    phi, first = split_overrides(args.phi)
    seeds, second = split_overrides(args.seeds)
    ray, third = (None, []) if args.ray is None else ray_address(args.ray)
    overrides = [*first, *second, *third, *args.overrides]
    plan = make_plan(
        args.config, phi, args.variants, whole_numbers(seeds), args.out, args.baseline, overrides
    )
    plan = with_controls(plan, args.control) if args.control else plan
    comparison = compare(plan, ["python", "compare.py", *sys.argv[1:]], ray)
    print(f"\n{summary(comparison, plan.out)}")


if __name__ == "__main__":
    run_command(main)
