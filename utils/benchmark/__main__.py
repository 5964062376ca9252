"""Measure the speed of training, inference, data, post-processing, evaluation and video in one run.

examples:
  python -m utils.benchmark                                   everything, in minutes
  python -m utils.benchmark train inference --seconds 120     two sections, longer
  python -m utils.benchmark --config voc.yaml data.root=/data/VOCdevkit train.batch_size=32
  python -m utils.benchmark inference --weights runs/neu_det  a trained network on its own data
  python -m utils.benchmark evaluation video --full           5,000 images, 10,000 frames
  python -m utils.benchmark --quick                           a smoke test; the numbers mean nothing
  python -m utils.benchmark --json speed.json --format markdown > speed.md

sections: gemm train inference data post evaluation video

By default the embedded data is used, at 416x416. Runs are interleaved, round by round: medians
and quartiles are over rounds, ratios are taken within a round.
"""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from utils.core.arguments import CommandParser, integer, number
from utils.core.cli import run_command


def parse_arguments() -> argparse.Namespace:
    parser = CommandParser(__doc__, "python -m utils.benchmark")
    add, group = parser.add_argument, parser.add_mutually_exclusive_group
    add("words", nargs="*", metavar="SECTION|KEY=VALUE", help="sections to run; keys to change")
    network, duration = group(), group()
    network.add_argument("--config", metavar="NAME|PATH", help="default: the embedded data")
    network.add_argument("--weights", metavar="FILE|RUN", help="default: random weights")
    duration.add_argument(
        "--seconds", type=number(0.001, 100_000), help="per section (at least 5 rounds), default 30"
    )
    duration.add_argument(
        "--rounds", type=integer(1, 100_000), metavar="N", help="exactly N rounds instead"
    )
    add("--quick", action="store_true", help="two rounds of small images, fewer backends")
    add("--full", action="store_true", help="metrics of 5,000 images, a video of 10,000 frames")
    add("--json", metavar="FILE", help="also write all numbers as JSON")
    add("--format", choices=("text", "markdown"), default="text", help="default: text")
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # read by torch: no log lines of its profiler
    # imported here, where `run_command` reports a missing library
    from nets.io.downloads import locate_weights
    from utils.benchmark.results import rows_with_target, summary
    from utils.benchmark.sections import choose_sections, run_sections
    from utils.benchmark.session import BenchmarkOptions, BenchmarkSession, benchmark_config
    from utils.core.outputs import claimed_outputs
    from utils.core.timing import Budget
    from utils.engine.report import write_json

    start = time.perf_counter()
    names = choose_sections([word for word in args.words if "=" not in word])
    overrides = [word for word in args.words if "=" in word]
    config = benchmark_config(args.config, args.weights, overrides, args.quick)
    budget = Budget(args.seconds or 30.0, min_rounds=5)
    if args.rounds or (args.quick and args.seconds is None):
        rounds = args.rounds or 2
        budget = Budget(0.0, rounds, rounds)
    weights = locate_weights(args.weights) if args.weights else None
    tables = []
    options = BenchmarkOptions(config, weights, budget, args.quick, args.full)
    with claimed_outputs(("--json", args.json)), BenchmarkSession(options) as session:
        header = session.header()
        print(describe(header))
        for table in run_sections(session, names):
            print(f"\n{table.render(args.format == 'markdown')}")
            tables.append(table)
    seconds = time.perf_counter() - start
    hint = " (--quick: the numbers mean nothing)" if args.quick else ""
    print(f"\n{summary(tables)}\n{seconds:.0f} s{hint}")
    if args.json:
        content = {
            "command": shlex.join(["python", "-m", "utils.benchmark", *sys.argv[1:]]),
            **header,
            "sections": {table.name: table.to_json() for table in tables},
            "targets": {
                "met": list(rows_with_target(tables, True)),
                "missed": list(rows_with_target(tables, False)),
            },
            "seconds": round(seconds, 1),
        }
        write_json(Path(args.json), content)


def describe(header: dict[str, dict[str, Any]]) -> str:
    """The machine and the settings in three lines."""
    machine, settings = header["machine"], header["settings"]
    height, width = settings["input_size"]
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    cpu = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    libraries = [f"{name} {version}" for name, version in machine["versions"].items()]
    return "\n".join(
        [
            f"machine: {cpu}{gpu}; {machine['device']}, {machine['precision']}",
            f"versions: {', '.join(libraries)}",
            f"network: phi {settings['phi']}, {settings['classes']} classes, "
            f"{settings['gflops']:.2f} GFLOP per image at {width}x{height}, "
            f"batches of {settings['batch_size']}",
        ]
    )


if __name__ == "__main__":
    run_command(main)
