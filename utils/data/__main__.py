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

from utils.core.arguments import CommandParser, integer, number, separate_overrides
from utils.core.cli import run_command

PROG = "python -m utils.data"
FORMATS = ("yolo", "voc", "coco")
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
  python -m utils.data anchors --root /data/screws model.heads=3 input_size=608
"""

SPLIT = """Divide a dataset into training, validation and test images, and write it as a new one.

In every split, each class has its share of the images. Identical files stay together. All images
are divided anew unless --of names splits. The new dataset has the format of the old one, or --to.

examples:
  python -m utils.data split --root /data/screws --val-share 0.2 --out /data/screws-split
  python -m utils.data split --root /data/screws --val-share 0.2 --test-share 0.1 --seed 1 --out new
  python -m utils.data split --root /data/screws --of train --out new    test stays as it is
  python -m utils.data split --root /data/screws --lists --out lists     only train.txt, val.txt
"""
CONVERT = """Write a dataset in another format, or with other classes.

What the format cannot hold is counted and reported. Images of the same name get different ones.

examples:
  python -m utils.data convert --root /data/screws --to yolo --out /data/screws-yolo
  python -m utils.data convert --root /data/screws --to voc --link --out new   links, no copies
  python -m utils.data convert --root /data/screws --to coco --out new --classes bolt nut
  python -m utils.data convert --root /data/a /data/b --to yolo --out new --merge screw=bolt,nut
  python -m utils.data convert --root /data/screws --to yolo --out new --rename nutt=nut
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
    from utils.core.outputs import write_file
    from utils.data.tools import check, statistics
    from utils.data.tools.inventory import read_inventory
    from utils.visualization.dataset_page import render_page

    inventory = read_inventory(_config(args), thorough=True)
    problems = check.find_problems(inventory, decode=False)
    measured = statistics.measure(inventory, problems)
    print("\n".join([*check.overview(inventory), *statistics.remarks(measured)]))
    if args.out is not None:
        write_file(args.out, render_page(measured, shlex.join([*PROG.split(), *sys.argv[1:]])))
        print(f"written: {args.out}")
    _write_json(args.json, statistics.to_json(measured))
    return 0


def _class_options(parser: CommandParser) -> None:
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=[], help="keep only these")
    parser.add_argument(
        "--merge", action="append", metavar="NEW=OLD,OLD", default=[], help="make one class of many"
    )
    parser.add_argument(
        "--rename", action="append", metavar="OLD=NEW", default=[], help="give a class another name"
    )


def _write_options(parser: CommandParser) -> None:
    parser.add_argument("--out", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument("--link", action="store_true", help="make links to the images, no copies")
    _class_options(parser)


def _split_options(parser: CommandParser) -> None:
    share = number(0.0001, 0.9999)
    parser.add_argument("--val-share", type=share, default=0.2, help="0 to 1; default: 0.2")
    parser.add_argument("--test-share", type=share, help="0 to 1; default: no test split")
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, help="default: 0")
    parser.add_argument("--of", nargs="+", metavar="SPLIT", default=[], help="divide only these")
    parser.add_argument("--to", choices=FORMATS, help="default: the format of the dataset")
    parser.add_argument("--lists", action="store_true", help="only lists of the images' paths")
    _write_options(parser)


def _split(args: argparse.Namespace) -> int:
    from utils.core.errors import UserError
    from utils.data.tools.selection import divide_anew
    from utils.data.tools.writers import write_dataset, write_lists

    shares = {"val": args.val_share}
    if args.test_share is not None:
        shares["test"] = args.test_share
    shares = {"train": 1 - sum(shares.values()), **shares}
    if shares["train"] <= 0:
        raise UserError("--val-share, --test-share: expected a sum below 1")
    changes = args.to or args.link or args.classes or args.merge or args.rename
    if args.lists and (changes or len(args.root or []) > 1):
        raise UserError("--lists: leaves images and labels of one dataset as they are")
    selection, file_format = _select(args)
    if len(selection.splits) > 1 and not args.of:
        print(f"note: {', '.join(selection.splits)} are joined and divided anew; --of keeps others")
    divide_anew(selection, shares, args.seed, args.of)
    if args.lists:
        written = write_lists(selection, Path(args.out), file_format == "yolo")
    else:
        written = write_dataset(selection, Path(args.out), args.to or file_format, args.link)
    print("\n".join(written.lines()))
    return 0


def _convert_options(parser: CommandParser) -> None:
    parser.add_argument("--to", choices=FORMATS, required=True, help="the new format")
    _write_options(parser)


def _convert(args: argparse.Namespace) -> int:
    from utils.data.tools.writers import write_dataset

    selection, _ = _select(args)
    written = write_dataset(selection, Path(args.out), args.to, args.link)
    print("\n".join(written.lines()))
    return 0


def _select(args: argparse.Namespace) -> tuple[Any, str]:
    """The images and classes to write, and the format of the first dataset."""
    from utils.data.tools.check import overview
    from utils.data.tools.inventory import read_inventory
    from utils.data.tools.selection import ClassChanges, change_classes, join
    from utils.data.tools.writers import check_new_folder

    configs = _configs(args)
    roots = [config.data.root for config in configs if config.data.root]
    check_new_folder(Path(args.out), roots)
    inventories = [read_inventory(config) for config in configs]
    for inventory in inventories:
        print("\n".join(overview(inventory, rules=True)))
    selection = join(inventories)
    changes = ClassChanges(args.classes, args.merge, args.rename)
    if changes:
        change_classes(selection, changes)
        for name, count in selection.dropped.items():
            print(f"  {count} objects of '{name}' left out")
    file_format = inventories[0].data.format
    return selection, file_format if file_format in FORMATS else "yolo"


def _anchors_options(parser: CommandParser) -> None:
    parser.add_argument(
        "--count", type=integer(1, 100), help="number of anchors; default: three per head"
    )
    _add_json(parser)


def _anchors(args: argparse.Namespace) -> int:
    from utils.data.loading import load_dataset
    from utils.data.tools import statistics

    config = _config(args)
    samples = load_dataset(config.data, "train", config.input_size).samples
    size, heads = config.input_size, config.model.heads
    anchors = statistics.compare_anchors(samples, size, heads, args.count)
    print("\n".join(statistics.describe_anchors(anchors, size)))
    _write_json(args.json, statistics.anchors_to_json(anchors))
    return 0


COMMANDS: dict[str, tuple[str, Callable, Callable]] = {
    "check": (CHECK, _check_options, _check),
    "stats": (STATS, _stats_options, _stats),
    "split": (SPLIT, _split_options, _split),
    "convert": (CONVERT, _convert_options, _convert),
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
    from utils.core.errors import UserError

    config, *others = _configs(args)
    if others:
        raise UserError(f"--root: expected one folder, got {len(others) + 1}")
    return config


def _configs(args: argparse.Namespace) -> list[Any]:
    """One configuration for each folder of `--root`."""
    from utils.core.config import load_config, make_config, update_config
    from utils.core.errors import UserError
    from utils.core.overrides import parse_overrides

    changes = parse_overrides(args.overrides)
    config = load_config(args.config) if args.config else make_config({})
    roots = args.root or [changes.get("data.root") or config.data.root]
    if not args.config and not roots[0]:
        raise UserError("expected --root FOLDER or --config FILE")
    return [update_config(config, {**changes, "data.root": root}) for root in roots]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line: the first word is the command."""
    if not words or words[0] not in COMMANDS:
        parser = CommandParser(__doc__, PROG)
        parser.add_argument("command", choices=list(COMMANDS))
        return parser.parse_args(list(words[:1]))
    description, add_options, run = COMMANDS[words[0]]
    parser = CommandParser(description, f"{PROG} {words[0]}")
    parser.add_argument("--root", nargs="+", metavar="FOLDER", help="the dataset, as data.root")
    parser.add_argument("--config", metavar="NAME|PATH", help="the dataset of this configuration")
    add_options(parser)
    parser.add_overrides("e.g. data.format=voc input_size=608")
    args = parser.parse_intermixed_args(list(words[1:]))
    from utils.core.config_fields import explain_fields  # slow, and not needed for --help

    keys = {key for key, _, _ in explain_fields()}  # a class may be called "a=b"
    separate_overrides(args, "root", "classes", "of", keys=keys)
    args.run = run
    return args


def main() -> None:
    """Run the command."""
    args = parse(sys.argv[1:])
    from utils.core.outputs import claimed_outputs

    files = [("--json", getattr(args, "json", None))]
    if args.run is _stats:
        files.append(("--out", args.out))
    with claimed_outputs(*files):
        sys.exit(args.run(args))


if __name__ == "__main__":
    run_command(main)
