"""Train a YOLOv4-tiny detector, with or without attention, on your own data.

examples:
  python train.py --config shapes.yaml                        the embedded data: a few minutes, no download
  python train.py --config neu_det.yaml data.root=/data/NEU-DET
  python train.py --config voc_cbam.yaml train.epochs=50 attention.init=identity weights=yolov4-tiny.weights
  python train.py --config bccd.yaml phi=eca seed=1 name=bccd-eca-1
  python train.py --resume runs/bccd-eca-1                    go on after an interruption
  python train.py --explain                                   every configuration key, its default and meaning
  torchrun --nproc_per_node 4 train.py --config voc.yaml data.cache=disk    one training on four GPUs
"""

import argparse

from utils.core.cli import run_command
from utils.core.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", metavar="NAME|PATH", help="an experiment (YAML), as given or in configs/"
    )
    what.add_argument("--resume", metavar="RUN", help="folder of an interrupted run")
    what.add_argument("--explain", action="store_true", help="list the configuration keys and end")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. train.epochs=10 phi=eca"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse()
    from utils.core.config import (
        explain_fields,
        load_config,
    )  # here, where `run_command` tells of a missing library

    if args.explain:
        for key, default, meaning in explain_fields():
            print(f"{key:26} {default:24} {meaning}")
        return
    if args.resume and args.overrides:
        raise UserError("--resume: a run goes on as it began; KEY=VALUE needs a new run")
    config = None if args.resume else load_config(args.config, args.overrides)
    from utils.core import distributed
    from utils.engine.experiment import resume, train

    distributed.init()
    result = train(config) if config else resume(args.resume)
    print(result.evaluation.metrics.table())
    print(f"\n{result.run}: best.pt, metrics.json, results.csv and pictures. Go on with:")
    print(f"  python eval.py --weights {result.run}")
    print(
        f"  python predict.py --weights {result.run} --source PICTURE  (without --source: its validation images)"
    )


if __name__ == "__main__":
    run_command(main)
