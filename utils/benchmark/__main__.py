"""Measure how fast training, inference, data, post-processing, evaluation and video are, side by side in one run.

examples:
  python -m utils.benchmark                                   all of it, minutes; the embedded data at 416x416
  python -m utils.benchmark train inference --seconds 120     two sections, longer
  python -m utils.benchmark --config voc.yaml data.root=/data/VOCdevkit train.batch_size=32
  python -m utils.benchmark inference --weights runs/neu_det  a trained network on its own data
  python -m utils.benchmark evaluation video --full           5,000 images, 10,000 frames
  python -m utils.benchmark --quick                           to see that it works; its numbers mean nothing
  python -m utils.benchmark --json speed.json --format markdown > speed.md

sections: gemm train inference data post evaluation video

What is compared takes turns, round by round; medians and quartiles are over rounds, ratios are taken within a round.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from utils.core.cli import run_command
from utils.core.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SECTION|KEY=VALUE",
        help="sections; configuration keys to change",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--config", metavar="NAME|PATH", help="an experiment (YAML); default: the embedded data"
    )
    what.add_argument(
        "--weights",
        metavar="FILE|RUN",
        help="a trained network, with its experiment; default: random",
    )
    long = parser.add_mutually_exclusive_group()
    long.add_argument(
        "--seconds", type=float, help="for each section, at least 5 rounds; default: 30"
    )
    long.add_argument("--rounds", type=int, metavar="N", help="exactly N rounds instead")
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of small images, some backends left out"
    )
    parser.add_argument(
        "--full", action="store_true", help="evaluation of 5,000 images, a video of 10,000 frames"
    )
    parser.add_argument("--json", metavar="FILE", help="also write every number there")
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="default: text"
    )
    args = parser.parse_intermixed_args()
    if args.seconds is not None and args.seconds <= 0:
        raise UserError(f"--seconds {args.seconds:g}: expected more than 0")
    if args.rounds is not None and args.rounds < 1:
        raise UserError(f"--rounds {args.rounds}: expected at least 1")
    return args


def main() -> None:
    args = parse()
    # imported here, where `run_command` tells of a missing library
    from utils.benchmark import report
    from utils.benchmark.bench import Bench, Settings, make_config
    from utils.benchmark.run import chosen, header, run, title
    from utils.core.timing import Budget
    from utils.engine.report import write_json

    start = time.perf_counter()
    names = chosen([word for word in args.words if "=" not in word])
    config = make_config(
        args.config, args.weights, [word for word in args.words if "=" in word], args.quick
    )
    rounds = args.rounds or (2 if args.quick and args.seconds is None else None)
    effort = Budget(0.0, rounds, rounds) if rounds else Budget(args.seconds or 30.0, min_rounds=5)
    weights = Path(args.weights) if args.weights else None
    show = report.as_markdown if args.format == "markdown" else report.as_text
    sections = []
    with Bench(Settings(config, weights, effort, args.quick, args.full)) as bench:
        head = header(bench, shlex.join(["python", "-m", "utils.benchmark", *sys.argv[1:]]))
        print(title(head))
        for section in run(bench, names):
            print(f"\n{show(section)}")
            sections.append(section)
    seconds = time.perf_counter() - start
    print(
        f"\n{report.summary(sections)}\n{seconds:.0f} s{' (--quick: the numbers mean nothing)' if args.quick else ''}"
    )
    if args.json:
        write_json(Path(args.json), report.as_json(sections, head, seconds))


if __name__ == "__main__":
    run_command(main)
