"""Train a YOLOv4-tiny detector, with or without attention, on your own data.

examples:
  python train.py --config shapes.yaml                        built-in data, a few minutes
  python train.py --config neu_det.yaml data.root=/data/NEU-DET
  python train.py --config voc_cbam.yaml attention.init=identity weights=yolov4-tiny.weights
  python train.py --config bccd.yaml phi=eca seed=1 name=bccd-eca-1
  python train.py --resume runs/bccd-eca-1                    continue after an interruption
  python train.py --explain                                   all keys, defaults and meanings
  torchrun --nproc_per_node 4 train.py --config voc.yaml data.cache=disk    four GPUs
"""

import argparse

from utils.core.arguments import CommandParser
from utils.core.cli import run_command
from utils.core.errors import UserError


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--config", metavar="NAME|PATH", help="experiment: a YAML file, or its name in configs/"
    )
    action.add_argument(
        "--resume",
        metavar="RUN",
        help="folder of an interrupted run, or its name in runs/ (output=DIR: in DIR)",
    )
    action.add_argument("--explain", action="store_true", help="list the configuration keys")
    parser.add_overrides("e.g. train.epochs=10 phi=eca")
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from utils.core import distributed
    from utils.core.config import load_config
    from utils.core.config_fields import explain_fields
    from utils.core.overrides import parse_overrides

    if args.explain:
        if args.overrides:
            raise UserError("--explain takes no KEY=VALUE")
        for key, default, meaning in explain_fields():
            print(f"{key:26} {default:24} {meaning}")
        return
    changes = parse_overrides(args.overrides)
    config = None if args.resume else load_config(args.config, changes)
    from utils.engine.experiment import resume, train

    distributed.init()
    result = train(config) if config else resume(args.resume, changes)
    print(result.report())


if __name__ == "__main__":
    run_command(main)
