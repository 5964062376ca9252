"""Print the network as a table: layers, sites of attention, shapes, parameters and operations.

Examples:
  python -m nets                                              the plain network and the sites that can carry attention
  python -m nets phi=cbam                                     a block at the default sites
  python -m nets --config voc.yaml input_size=608 phi=eca
  python -m nets 'phi={feat1: eca, head16: {name: cbam, reduction: 16}}' --classes 3
  python -m nets phi=se 'attention.at=[csp1, csp2, csp3]'     inside the residual paths of the CSP blocks
"""

import argparse

from utils.core.cli import run_command
from utils.core.errors import UserError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="NAME|PATH", help="an experiment (YAML); default: the default values"
    )
    parser.add_argument(
        "--classes", type=int, metavar="N", help="default: those of the configuration, else 20"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. phi=eca input_size=608"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """The command line."""
    args = _parse()
    from nets.analysis.summary import describe_network
    from utils.core.config import load_config, make_config, parse_overrides, update_config

    if args.classes is not None and args.classes < 1:
        raise UserError(f"--classes {args.classes}: expected a number of at least 1")
    changes = parse_overrides(args.overrides)
    config = (
        load_config(args.config, changes)
        if args.config
        else update_config(make_config({}), changes)
    )
    print(describe_network(config, args.classes))


if __name__ == "__main__":
    run_command(main)
