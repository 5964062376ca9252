"""Look at a dataset, and change its form: check, stats, split, convert, anchors.

examples:
  python -m utils.data check --root /data/screws                    what is wrong
  python -m utils.data stats --root /data/screws --out screws.html  a page that needs no network
  python -m utils.data split --root /data/screws --val-share 0.2 --out /data/screws-split
  python -m utils.data convert --root /data/screws --to coco --out /data/screws-coco
  python -m utils.data anchors --root /data/screws input_size=608

python -m utils.data COMMAND --help lists the options of a command.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.core.arguments import CommandParser, integer
from utils.core.cli import run_command

PROG = "python -m utils.data"
CHECK = """Find what is wrong with a dataset, in all of its splits.

Every image is decoded. Exit code: 0 if there are no errors, 1 if there are, 2 for a wrong command.
docs/datasets.md says which findings are errors and which are remarks.

examples:
  python -m utils.data check --root /data/screws
  python -m utils.data check --root /data/screws --all              name every file
  python -m utils.data check --config neu_det.yaml --json findings.json
"""

STATS = """Describe a dataset: what to notice, as text, and as a page with plots and images.

examples:
  python -m utils.data stats --root /data/screws --out screws.html
  python -m utils.data stats --root /data/screws --out screws.html --json screws.json input_size=608
"""
ANCHORS = """Fit anchors to the training boxes, and compare them with Darknet's.

A training with model.anchors=auto, the default, does the same.

examples:
  python -m utils.data anchors --root /data/screws
  python -m utils.data anchors --root /data/screws --count 9 input_size=608
"""


def _check_options(parser: CommandParser) -> None:
    parser.add_argument("--all", action="store_true", help="name every file, not the first few")
    _add_json(parser)


def _check(args: argparse.Namespace) -> int:
    from utils.data.tools import check
    from utils.data.tools.inventory import read_inventory

    inventory = read_inventory(_config(args), thorough=True)
    problems = check.find_problems(inventory)
    print("\n".join(check.describe(inventory, problems, args.all)))
    _write_json(args.json, check.to_json(inventory, problems))
    return int(any(problem.is_error for problem in problems))


def _stats_options(parser: CommandParser) -> None:
    parser.add_argument("--out", metavar="FILE", help="also write a page, HTML in one file")
    _add_json(parser)


def _stats(args: argparse.Namespace) -> int:
    from utils.core.files import write_file
    from utils.data.tools import check, statistics
    from utils.data.tools.inventory import read_inventory
    from utils.visualization.dataset_page import render_page

    inventory = read_inventory(_config(args))
    problems = check.find_problems(inventory, decode=False)
    measured = statistics.measure(inventory, problems)
    print("\n".join([*check.overview(inventory), *statistics.remarks(measured)]))
    if args.out is not None:
        write_file(args.out, render_page(measured, shlex.join([*PROG.split(), *sys.argv[1:]])))
        print(f"written: {args.out}")
    _write_json(args.json, statistics.to_json(measured))
    return 0


def _anchors_options(parser: CommandParser) -> None:
    parser.add_argument(
        "--count", type=integer(1, 100), default=6, help="number of anchors; default: 6"
    )
    _add_json(parser)


def _anchors(args: argparse.Namespace) -> int:
    from utils.data.loading import load_dataset
    from utils.data.tools import statistics

    config = _config(args)
    samples = load_dataset(config.data, "train", config.input_size).samples
    anchors = statistics.compare_anchors(samples, config.input_size, args.count)
    print("\n".join(statistics.describe_anchors(anchors, config.input_size)))
    _write_json(args.json, statistics.anchors_to_json(anchors))
    return 0


COMMANDS: dict[str, tuple[str, Callable, Callable]] = {
    "check": (CHECK, _check_options, _check),
    "stats": (STATS, _stats_options, _stats),
    "anchors": (ANCHORS, _anchors_options, _anchors),
}


def _add_json(parser: CommandParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="also write all numbers as JSON")


def _write_json(path: str | None, content: dict[str, Any]) -> None:
    from utils.engine.report import write_json

    if path is not None:
        write_json(Path(path), content)


def _config(args: argparse.Namespace) -> Any:
    """The configuration that the options and `KEY=VALUE` words describe."""
    from utils.core.config import load_config, make_config, parse_overrides, update_config
    from utils.core.errors import UserError

    changes = parse_overrides(args.overrides)
    if args.root:
        changes["data.root"] = args.root
    if args.config:
        return load_config(args.config, changes)
    if not changes.get("data.root"):
        raise UserError("expected --root FOLDER or --config FILE")
    return update_config(make_config({}), changes)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line: the first word is the command."""
    if not words or words[0] not in COMMANDS:
        parser = CommandParser(__doc__, PROG)
        parser.add_argument("command", choices=list(COMMANDS))
        parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
        return parser.parse_args(words)
    description, add_options, run = COMMANDS[words[0]]
    parser = CommandParser(description, f"{PROG} {words[0]}")
    parser.add_argument("--root", metavar="FOLDER", help="the dataset, as data.root")
    parser.add_argument("--config", metavar="NAME|PATH", help="the dataset of this configuration")
    add_options(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. data.format=voc input_size=608"
    )
    args = parser.parse_intermixed_args(list(words[1:]))
    args.run = run
    return args


def main() -> None:
    """Run the command."""
    args = parse(sys.argv[1:])
    from utils.core.files import claimed_outputs

    with claimed_outputs(*((f"--{name}", getattr(args, name, None)) for name in ("json", "out"))):
        sys.exit(args.run(args))


if __name__ == "__main__":
    run_command(main)
