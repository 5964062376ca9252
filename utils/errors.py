"""A user's mistake, told in one line."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can mend: the message is one line that names the file or key and what was expected."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the valid name closest to `name`, or the list of valid names."""
    names = [str(item) for item in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; expected one of: {', '.join(names)}" if names else ""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130.

    A closed pipe (`python eval.py | head`) ends quietly, as other tools do.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
