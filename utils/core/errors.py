"""A user's mistake, told in one line."""

import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

# what opencv-python links to and a machine without a display lacks; opencv-python-headless needs none of it
DISPLAY_LIBRARY = re.compile(
    r"lib(GL|EGL|X|xcb|SM|ICE|gthread|glib)[^:]*: cannot open shared object file"
)


class UserError(Exception):
    """Something the user can mend: the message is one line that names the file or key and what was expected."""


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """Return `"; did you mean 'x'?"` for the valid name closest to `name`, or the list of valid names.

    `prefix` is put before the name found, e.g. the section of a key.
    """
    names = [str(item) for item in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{prefix}{close[0]}'?"
    return f"; expected one of: {', '.join(names)}" if names else ""


def require_package(package: str, wanted_by: str) -> ModuleType:
    """Import an optional package by its dotted name; `wanted_by` is the key or option that asks for it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        name = package.partition(".")[0]
        if (error.name or "").partition(".")[0] != name:
            raise
        raise UserError(f"{wanted_by}: {name} is not installed: pip install {name}") from None


def run_command(main: Callable[[], None]) -> None:
    """Run a command line: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130.

    So does a library that is missing, if `main` imports it. A closed pipe (`python eval.py | head`) ends quietly, as
    other tools do. Into a pipe or a file, lines go one by one, so that the progress of a long work can be followed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            line_buffering=True, errors="backslashreplace"
        )  # a class may be named in any script
    try:
        main()
    except UserError as error:
        _fail(str(error))
    except ImportError as error:
        hint = _what_to_install(error)
        if hint is None:
            raise
        _fail(hint)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _what_to_install(error: ImportError) -> str | None:
    """One line on a library that is missing; none where the mistake is in the program."""
    if DISPLAY_LIBRARY.search(str(error)):
        return (
            f"OpenCV cannot be imported ({error}); on a machine without a display install the one that needs none: "
            "pip uninstall -y opencv-python && pip install opencv-python-headless"
        )
    package = (error.name or "").partition(".")[0]
    own = Path(__file__).resolve().parents[2]
    ours = (own / package).exists() or (own / f"{package}.py").exists()
    if isinstance(error, ModuleNotFoundError) and package and not ours:
        return f"the library {package} is not installed: pip install -r requirements.txt"
    return None
