"""Run the project's conformance checks on a block of your own.

    python -m nets.attention.check package.module:Class [--channels 64] [option=value ...]

The block is any `nn.Module` class: `Class(channels, **options)`, `(B, C, H, W) -> (B, C, H, W)` for
any H and W. A registered name works as well. Exit code 0: every check passed; 1: one failed; 2: the
block cannot be built.
"""

import sys
import warnings
from collections.abc import Callable

import torch

from nets.attention.conformance import CHECKS, Make
from nets.attention.registry import Spec, build, describe
from utils.core.arguments import CommandParser, integer
from utils.core.cli import run_command
from utils.core.errors import UserError, shorten
from utils.core.yaml_text import parse_yaml

EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # needed for the export, not by the block


def check_block(spec: Spec, channels: int) -> bool:
    """Print one line per check, `ok`, `skipped` or `FAILED` with the reason.

    Returns:
        True if no check failed.

    Raises:
        UserError: the block cannot be built.
    """
    build(spec, channels)
    print(f"{describe(spec)} on {channels} channels")
    passed = True
    for name, check in CHECKS.items():
        torch.manual_seed(0)
        verdict = _verdict(check, spec, channels)
        passed = passed and not verdict.startswith("FAILED")
        print(f"  {name.replace('_', ' '):26} {verdict}", flush=True)
    return passed


def _verdict(check: Callable[[Make, int], None], spec: Spec, channels: int) -> str:
    try:
        check(lambda: build(spec, channels), channels)
    except AssertionError as error:
        return f"FAILED: {error}"
    except ModuleNotFoundError as error:
        if error.name in EXPORT_PACKAGES:
            return f"skipped: {error.name} is not installed"
        return f"FAILED: {error}"
    except Exception as error:  # a block may fail in any way
        first_line = str(error).strip().partition("\n")[0]
        return f"FAILED: {type(error).__name__}: {first_line}"
    return "ok"


def _parse() -> tuple[Spec, int]:
    parser = CommandParser("Check one attention block", "python -m nets.attention.check")
    parser.add_argument("block", help="package.module:Class or a registered name")
    parser.add_argument(
        "--channels",
        type=integer(1, 4096),
        default=64,
        help="channels of the feature map (default 64)",
    )
    parser.add_argument("options", nargs="*", metavar="option=value", help="options of the block")
    args = parser.parse_args()
    options = {}
    for item in args.options:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{shorten(item)}: expected option=value")
        options[key] = parse_yaml(value, f"{shorten(key)}=")
    if args.block == "none":
        raise UserError("expected a block, got none")
    return {"name": args.block, **options}, args.channels


def main() -> None:
    """Run the command line."""
    warnings.filterwarnings("ignore", module="torch")  # from the exporter, not about the block
    spec, channels = _parse()
    if not check_block(spec, channels):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
