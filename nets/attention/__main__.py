"""List the attention blocks, or explain one: formula, options with defaults, source, traps.

Examples:
  python -m nets.attention                        a table of all blocks
  python -m nets.attention cbam eca               these blocks, in full
  python -m nets.attention my_package:MyBlock     a block of your own
  python -m nets.attention --out docs/blocks.md   all blocks in full, as a Markdown page
"""

from nets import attention
from utils.core.arguments import CommandParser
from utils.core.cli import run_command, show_page
from utils.core.errors import UserError
from utils.core.outputs import claimed_outputs

COMMAND = "python -m nets.attention"


def main() -> None:
    """Run the command."""
    parser = CommandParser(__doc__, COMMAND)
    parser.add_argument("blocks", nargs="*", metavar="NAME", help="default: all, as a table")
    parser.add_argument("--out", metavar="FILE", help="write a Markdown page; default: print it")
    args = parser.parse_args()
    if "none" in args.blocks:
        raise UserError("none is no block, it stands for the network without attention")
    from nets.analysis.block_docs import block_section, catalog_page, format_table

    with claimed_outputs(("--out", args.out)):
        if args.blocks:
            page = "\n\n".join(block_section([name]) for name in args.blocks)
        elif args.out:
            page = catalog_page(f"{COMMAND} --out docs/blocks.md")
        else:
            page = format_table(attention.names())
        show_page(page, args.out)


if __name__ == "__main__":
    run_command(main)
