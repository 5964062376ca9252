"""Export a trained detector to ONNX, or to Darknet's weights, cfg and names.

examples:
  python export.py --format onnx                              newest run; runs/<name>/best.onnx
  python export.py --weights runs/voc --format onnx --out voc.onnx
  python export.py --weights runs/voc --format darknet        for Darknet and OpenCV 4
  python eval.py --weights voc.onnx                           the same numbers as from runs/voc
"""

import argparse

from utils.core.arguments import CommandParser, integer
from utils.core.cli import add_weights, run_command


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    add_weights(parser)
    parser.add_argument("--format", required=True, choices=("onnx", "darknet"))
    parser.add_argument(
        "--out", metavar="FILE", help="default: next to the weights, with the format's suffix"
    )
    parser.add_argument(
        "--opset", type=integer(1, 99), help="onnx: operator set version; default: the exporter's"
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from utils.engine.export import export

    print("\n".join(export(args.weights, args.format, args.out, args.opset)))


if __name__ == "__main__":
    run_command(main)
