"""Check a block of your own as the project's blocks are checked.

    python -m nets.attention.check package.module:Class [--channels 64] [option=value ...]

The block is any `nn.Module` class: `Class(channels, **options)`, `(B, C, H, W) -> (B, C, H, W)` for any H and W. A
registered name works as well. Exit code 0: every check passed; 1: one failed; 2: the block cannot be built.
"""

import argparse
import sys
import warnings
from collections.abc import Callable

import torch
import yaml

from nets.attention.conformance import CHECKS, Make
from nets.attention.registry import Spec, build, describe
from utils.core.cli import run_command
from utils.core.errors import UserError

OPTIONAL = ("onnx", "onnxscript", "onnxruntime")  # an export needs them, a block does not


def check_block(spec: Spec, channels: int) -> bool:
    """Print one line a check, `ok`, `skipped` or `FAILED` with the reason; True if none failed.

    Raises:
        UserError: the block cannot be built.
    """
    build(spec, channels)
    print(f"{describe(spec)} on {channels} channels")
    verdicts = []
    for name, check in CHECKS.items():
        torch.manual_seed(0)
        verdicts.append(_verdict(check, spec, channels))
        print(f"  {name.replace('_', ' '):26} {verdicts[-1]}", flush=True)
    return not any(verdict.startswith("FAILED") for verdict in verdicts)


def _verdict(check: Callable[[Make, int], None], spec: Spec, channels: int) -> str:
    try:
        check(lambda: build(spec, channels), channels)
    except AssertionError as error:
        return f"FAILED: {error}"
    except ModuleNotFoundError as error:
        missing = error.name or ""
        return f"skipped: {missing} is not installed" if missing in OPTIONAL else f"FAILED: {error}"
    except Exception as error:  # whatever the block does wrong is its verdict
        return f"FAILED: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return "ok"


def _parse(arguments: list[str] | None = None) -> tuple[Spec, int]:
    parser = argparse.ArgumentParser(
        prog="python -m nets.attention.check", description="Conformance of one block"
    )
    parser.add_argument("block", help="package.module:Class or a registered name")
    parser.add_argument(
        "--channels", type=int, default=64, help="channels of the maps (default 64)"
    )
    parser.add_argument("options", nargs="*", metavar="option=value", help="options of the block")
    given = parser.parse_args(arguments)
    options = {}
    for item in given.options:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{item}: expected option=value")
        options[key] = yaml.safe_load(value)
    if given.block == "none" or given.channels < 1:
        raise UserError("expected a block, and at least one channel")
    return {"name": given.block, **options}, given.channels


def main() -> None:
    """The command line."""
    warnings.filterwarnings("ignore", module="torch")  # the exporter's, not about the block
    spec, channels = _parse()
    if not check_block(spec, channels):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
