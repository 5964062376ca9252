"""Export a trained detector for other runtimes; every file is checked before it appears.

examples:
  python export.py --format onnx                              newest run; runs/<name>/best.onnx
  python export.py --weights runs/voc --format onnx --out voc.onnx
  python export.py --weights runs/voc --format openvino --size 608
  python export.py --weights runs/voc --format openvino --int8 data.root=/data/voc
  python export.py --weights runs/voc --format onnx --opset 12 --batch 1 --nms --half
  python export.py --weights runs/voc --format ncnn           for phones and small boards
  python export.py --weights runs/voc --format tflite --batch 4
  python export.py --weights runs/voc --format torchscript    for PyTorch in C++
  python export.py --weights runs/voc --format darknet        for Darknet and OpenCV 4
  python eval.py --weights voc.onnx                           the same numbers as from runs/voc
"""

import argparse

from utils.core.arguments import CommandParser, integer, separate_overrides
from utils.core.cli import add_weights, run_command

FORMATS = ("onnx", "openvino", "ncnn", "tflite", "torchscript", "darknet")
DYNAMIC = "dynamic"


def batch_size(text: str) -> int | str:
    """The type of `--batch`."""
    return text if text == DYNAMIC else integer(1, 1024)(text)


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    add_weights(parser)
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "--out", metavar="FILE", help="default: next to the weights, with the format's suffix"
    )
    parser.add_argument(
        "--opset", type=integer(1, 99), help="onnx: operator set version; default: the exporter's"
    )
    parser.add_argument(
        "--batch",
        type=batch_size,
        metavar="N|dynamic",
        help="onnx, openvino, tflite: images per call; default: dynamic, any number; tflite: 1",
    )
    parser.add_argument(
        "--size",
        nargs="+",
        metavar="PIXELS",
        help="size of the input, an integer or height and width; default: that of the weights",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--half", action="store_true", help="onnx, openvino, ncnn: store the weights as float16"
    )
    weights.add_argument(
        "--int8", action="store_true", help="openvino: quantize, calibrated on training images"
    )
    parser.add_argument(
        "--nms", action="store_true", help="onnx: end with NMS, which has no box voting"
    )
    parser.add_overrides("of data and predict, e.g. data.root=FOLDER")
    args = parser.parse_intermixed_args()
    separate_overrides(args, "size")
    try:
        args.size = args.size and [integer(32, 4096, 32)(word) for word in args.size]
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --size: {error}")
    return args


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from utils.core.overrides import parse_overrides
    from utils.engine.export import ExportOptions, export

    options = ExportOptions(args.opset, args.batch, args.half, args.int8, args.nms)
    changes = parse_overrides(args.overrides)
    lines = export(args.weights, args.format, args.out, options, args.size, args.cfg, changes)
    print("\n".join(lines))


if __name__ == "__main__":
    run_command(main)
