"""A web page to try a detector in: drop an image or a video, see boxes and what they rest on.

examples:
  python demo.py                                              all runs in runs/, the newest first
  python demo.py --weights runs/neu_det yolov4-tiny.weights --port 8000
  python demo.py --host 0.0.0.0                               also for other machines
  curl --data-binary @street.jpg 'http://127.0.0.1:7860/detect?score=0.3'    the same as JSON

Needs `pip install -r requirements-predict.txt`.
"""

import argparse

from utils.core.arguments import CommandParser, integer
from utils.core.cli import add_backend, run_command


def parse() -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--weights",
        nargs="+",
        metavar="FILE|RUN",
        help="weights files or runs to choose from; default: all in runs/",
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 or mps; default: the run's")
    add_backend(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine"
    )
    parser.add_argument("--port", type=integer(0, 65535), default=7860, help="default: 7860")
    return parser.parse_args()


def main() -> None:
    args = parse()
    # imported here so that `--help` is immediate and `run_command` can report a missing library
    from utils.engine.demo import Demo, serve

    serve(Demo(args.weights, args.device, args.backend), args.host, args.port)


if __name__ == "__main__":
    run_command(main)
