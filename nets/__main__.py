"""Print the network as a table: layers, attention sites, shapes, parameters and operations.

Examples:
  python -m nets                             no attention; lists all attention sites
  python -m nets phi=cbam                    a block at the default sites
  python -m nets --config voc.yaml input_size=608 phi=eca
  python -m nets model.heads=3               a third head, and its three sites
  python -m nets 'phi={feat1: eca, head16: {name: cbam, reduction: 16}}' --classes 3
  python -m nets phi=se 'attention.at=[csp1, csp2, csp3]'   inside the CSP blocks
"""

import argparse

from utils.core.arguments import CommandParser, integer
from utils.core.cli import run_command

DEFAULT_CLASSES = 20  # as in Pascal VOC, if the configuration does not name its classes


def _parse() -> argparse.Namespace:
    parser = CommandParser(__doc__, "python -m nets")
    parser.add_argument(
        "--config", metavar="NAME|PATH", help="a configuration (YAML); default: the default values"
    )
    parser.add_argument(
        "--classes",
        type=integer(1, 100_000),
        metavar="N",
        help=f"number of classes; default: the configuration's, else {DEFAULT_CLASSES}",
    )
    parser.add_overrides("e.g. phi=eca input_size=608")
    return parser.parse_intermixed_args()


def main() -> None:
    """Run the command."""
    args = _parse()
    from nets.analysis.summary import describe_network
    from utils.core.class_names import read_class_names
    from utils.core.config import load_config, make_config, update_config
    from utils.core.overrides import parse_overrides

    overrides = parse_overrides(args.overrides)
    if args.config:
        config = load_config(args.config, overrides)
    else:
        config = update_config(make_config({}), overrides)
    num_classes = args.classes
    if num_classes is None:
        num_classes = len(read_class_names(config.data.classes) or ()) or DEFAULT_CLASSES
    print(describe_network(config, num_classes))


if __name__ == "__main__":
    run_command(main)
