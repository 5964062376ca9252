"""Check that exported networks run with every attention block, in every runtime that is installed.

Examples:
  python -m nets.runtime_table                                every block
  python -m nets.runtime_table --blocks se cbam --runtimes opencv openvino
  python -m nets.runtime_table --blocks my_package.blocks:MyBlock
  python -m nets.runtime_table --out runtimes.md

Exit code 0: all agree with PyTorch; 1: a block fails where each one must run, that is, in ONNX
Runtime, OpenVINO and OpenCV; ncnn and LiteRT may refuse some. docs/runtimes.md has the results.
"""

import argparse
import shlex
import sys

from nets import attention
from nets.analysis.runtime_support import (
    RUNTIMES,
    check_block,
    failures,
    pick_runtimes,
    runtime_page,
)
from utils.core.arguments import CommandParser, integer
from utils.core.cli import run_command, show_page
from utils.core.outputs import claimed_outputs
from utils.core.progress import progress_bar

DEFAULT_SIZE = 224  # maps of an odd and of an even side


def _parse() -> argparse.Namespace:
    parser = CommandParser(__doc__, "python -m nets.runtime_table")
    add = parser.add_argument
    add(
        "--blocks",
        nargs="+",
        metavar="BLOCK",
        default=["none", *attention.names()],
        help="registered names or package.module:Class; default: all",
    )
    add("--runtimes", nargs="+", metavar="NAME", default=[], help=f"of {', '.join(RUNTIMES)}")
    add(
        "--size",
        type=integer(32, 4096, multiple=32),
        default=DEFAULT_SIZE,
        help="side in pixels; default: %(default)s",
    )
    add("--out", metavar="FILE", help="write a Markdown page; default: print it")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = _parse()
    runtimes = pick_runtimes(args.runtimes)
    command = f"python -m nets.runtime_table {shlex.join(sys.argv[1:])}".strip()
    verdicts = {}
    with claimed_outputs(("--out", args.out)):
        for block in progress_bar(args.blocks, desc="checking", unit="block", leave=True):
            verdicts[block] = check_block(block, runtimes, args.size)
        show_page(runtime_page(verdicts, runtimes, command), args.out)
    if failed := failures(verdicts, runtimes):
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
