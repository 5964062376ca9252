"""Evaluate a trained detector: COCO AP and VOC AP, overall and per class.

examples:
  python eval.py                                              newest run, its validation split
  python eval.py --weights runs/neu_det --split test --json numbers.json
  python eval.py --weights runs/neu_det --plots out eval.nms_iou=0.5
  python eval.py --weights runs/neu_det --backend openvino precision=int8
  python eval.py --weights runs/neu_det --tile 416            small objects in large images
  python eval.py --weights yolov4-tiny.weights --config coco.yaml data.root=/data/coco
"""

import argparse

from utils.core.arguments import CommandParser
from utils.core.cli import add_backend, add_tiling, add_weights, run_command


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    add_weights(parser)
    parser.add_argument(
        "--split", default="val", help="train, val or another split of the dataset; default: val"
    )
    parser.add_argument(
        "--config", metavar="NAME|PATH", help="evaluate on the data of this experiment instead"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument(
        "--plots", metavar="DIR", help="also draw curves, confusion matrix and predictions"
    )
    parser.add_argument("--pictures", dest="plots", help=argparse.SUPPRESS)  # the former name
    add_backend(parser)
    add_tiling(parser)
    parser.add_argument(
        "--reference", action="store_true", help="also evaluate in float32 and print the AP lost"
    )
    parser.add_overrides("e.g. eval.nms_iou=0.5 device=cpu; output=DIR: folder of the runs")
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from nets.inference.tiling import make_tiling
    from utils.core import distributed
    from utils.core.overrides import parse_overrides
    from utils.engine.evaluation import evaluate_weights

    distributed.init()
    changes = parse_overrides(args.overrides)
    if args.backend:
        changes["backend"] = args.backend
    if args.cfg:
        changes["cfg"] = args.cfg
    evaluation = evaluate_weights(
        args.weights,
        split=args.split,
        changes=changes,
        config=args.config,
        json_path=args.json,
        plots=args.plots,
        reference=args.reference,
        tiling=make_tiling(args.tile, args.overlap),
    )
    print(evaluation.metrics.table())


if __name__ == "__main__":
    run_command(main)
