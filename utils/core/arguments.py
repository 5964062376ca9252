"""The parser of all command lines: values are checked as they are read, and errors take one line.

Imports nothing slow, so that `--help` is immediate.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from utils.core.errors import UserError, nearest, shorten

OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")  # the start of KEY=VALUE


class CommandParser(argparse.ArgumentParser):
    """A parser that raises a `UserError` for a wrong argument.

    Args:
        description: the text of `--help`, which keeps its line breaks.
        prog: the command, if it is not a script.
    """

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=formatter)

    def add_overrides(self, text: str) -> None:
        """Take `KEY=VALUE` words, as `args.overrides`; the text is their help."""
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=text)

    def error(self, message: str) -> NoReturn:
        """Raise the parser's message."""
        told = shorten(message.removeprefix("argument "), 300)
        raise UserError(f"{told}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after refusing unknown options and empty words."""
        words = sys.argv[1:] if args is None else list(args)
        self._check_words(words[: words.index("--")] if "--" in words else words)
        return super().parse_known_args(words, namespace)

    def _check_words(self, words: Sequence[str]) -> None:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        before = "command line"
        for word in words:
            option, equals, value = word.partition("=")
            if not word:
                raise UserError(f"{shorten(before)}: expected a value, got ''")
            before = word
            if not word.startswith("--"):
                continue
            # argparse accepts an option's first letters
            if not any(name.startswith(option) for name in known):
                raise UserError(f"unknown option {shorten(option)}{nearest(option, known)}")
            if equals and not value:
                raise UserError(f"{option}: expected a value, got ''")


def number(low: float, high: float) -> Callable[[str], float]:
    """An option's type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"expected a number from {low:,g} to {high:,g}, got {shorten(text, quoted=True)}"
            )
        return value

    return parse


def integer(low: int, high: int, multiple: int = 1) -> Callable[[str], int]:
    """An option's type: an integer from `low` to `high`, and a multiple of `multiple`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high or value % multiple:
            of = "an integer" if multiple == 1 else f"a multiple of {multiple}"
            raise argparse.ArgumentTypeError(
                f"expected {of} from {low:,} to {high:,}, got {shorten(text, quoted=True)}"
            )
        return value

    return parse


def separate_overrides(
    args: argparse.Namespace, *options: str, keys: Collection[str] | None = None
) -> None:
    """Move `KEY=VALUE` words that options took for their own into `args.overrides`.

    In `--phi none se train.epochs=5` argparse takes the last word as a value of `--phi`. The name
    of a file that exists stays.

    Args:
        args: the parsed command line.
        options: those of its options that take several words; some commands may lack one.
        keys: only these are moved; None: any.

    Raises:
        UserError: an option has no other word.
    """
    moved = []
    for option in options:
        words = getattr(args, option, None) or []
        own = [word for word in words if not _is_override(word, keys)]
        if words and not own:
            raise UserError(f"--{option}: expected a value, got only {shorten(words[0])}")
        moved += [word for word in words if word not in own]
        if words:
            setattr(args, option, own)
    args.overrides = [*moved, *args.overrides]


def _is_override(word: str, keys: Collection[str] | None) -> bool:
    is_key = keys is None or word.partition("=")[0] in keys
    return bool(OVERRIDE.match(word)) and is_key and not os.path.lexists(word)
