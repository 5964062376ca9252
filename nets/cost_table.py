"""Measure what attention blocks cost: parameters, operations and milliseconds.

Examples:
  python -m nets.cost_table --out docs/attention_cost.md      every registered block
  python -m nets.cost_table se cbam eca --rounds 30
  python -m nets.cost_table se cbam --backends onnxruntime openvino:bf16 openvino:int8
  python -m nets.cost_table my_package.blocks:MyBlock --at feat1 --device cuda
  python -m nets.cost_table --quick                           takes seconds; times are meaningless

How it is measured: nets/analysis/block_costs.py.
"""

import argparse
import shlex
import sys

import torch

from nets import attention
from nets.analysis.block_costs import CostOptions, cost_page, measure_block_costs
from nets.analysis.deployed_costs import measure_deployed_costs, parse_backends
from utils.core.arguments import CommandParser, integer
from utils.core.cli import run_command, show_page
from utils.core.errors import UserError
from utils.core.outputs import claimed_outputs


def _parse() -> argparse.Namespace:
    default = CostOptions()
    parser = CommandParser(__doc__, "python -m nets.cost_table")
    add = parser.add_argument
    add("blocks", nargs="*", help="registered names or package.module:Class; default: all")
    add("--at", nargs="+", metavar="SITE", default=default.sites, help="default: %(default)s")
    add(
        "--size",
        type=integer(32, 4096, multiple=32),
        default=default.size[0],
        help="side in pixels; default: %(default)s",
    )
    add("--rounds", type=integer(1, 100_000), default=default.rounds, help="default: %(default)s")
    add(
        "--batch",
        type=integer(1, 4096),
        default=default.batch,
        help="images per training step; default: %(default)s",
    )
    add("--device", default=default.device, help="auto, cpu, cuda, mps; default: %(default)s")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default=default.precision)
    add(
        "--threads", type=integer(0, 1024), default=0, help="CPU threads; default: PyTorch's choice"
    )
    add(
        "--backends",
        nargs="+",
        metavar="NAME[:PRECISION]",
        default=[],
        help="also time exported networks in these, on the CPU; default: none",
    )
    add("--quick", action="store_true", help="two rounds of one small image")
    add("--out", metavar="FILE", help="write a Markdown page; default: print it")
    args = parser.parse_intermixed_args()
    if args.quick:
        args.rounds, args.size, args.batch = 2, 64, 2
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if args.size == 32 and args.batch == 1:
        raise UserError(
            "--batch 1: batch normalization cannot train on maps of one cell; "
            "expected 2, or --size 64"
        )


def main() -> None:
    """Run the command."""
    args = _parse()
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    options = CostOptions(
        sites=tuple(args.at),
        size=(args.size, args.size),
        rounds=args.rounds,
        batch=args.batch,
        device=args.device,
        precision=args.precision,
    )
    with claimed_outputs(("--out", args.out)):
        backends = parse_backends(args.backends)
        plain, costs = measure_block_costs(args.blocks or attention.names(), options)
        if backends:
            measure_deployed_costs(costs, backends, options)
        command = f"python -m nets.cost_table {shlex.join(sys.argv[1:])}".strip()
        show_page(cost_page(plain, costs, options, command), args.out)


if __name__ == "__main__":
    run_command(main)
