"""What several command lines ask for; imports nothing that takes time."""

import argparse


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE|RUN",
        help="weights file or run folder; default: the newest run's best.pt",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend", help="torch, compile, onnxruntime, openvino or auto; default: the run's"
    )
