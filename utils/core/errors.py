"""User errors, reported in one line."""

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType

MAX_LISTED = 40  # names in a hint


class UserError(Exception):
    """A mistake the user can fix: one line that names the file or key and what was expected."""


class NonFiniteError(UserError):
    """A loss, gradient or weight that is NaN or infinite: a training that diverged."""


def shorten(value: object, limit: int = 80, quoted: bool = False) -> str:
    """A value for an error message: on one line, and without its middle if it is long.

    Args:
        value: text; or anything else, shown by its `repr`.
        limit: number of characters of the result, more than 12.
        quoted: show text by its `repr`, too.
    """
    text = value if isinstance(value, str) and not quoted else repr(value)
    if len(text) > limit:
        text = f"{text[: limit - 12]}...{text[-9:]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def without_login(address: str) -> str:
    """An address for messages and files: without the user's name and password."""
    return re.sub("(?<=://)[^/?#]*@", "", address)


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """A hint for an error message about an unknown name.

    Args:
        name: the unknown name.
        valid: the names that would have been accepted.
        prefix: put before the suggestion, e.g. the section of a key.

    Returns:
        `"; did you mean 'x'?"` for the closest valid name; if none is close, the list of all, or of
        the first if there are many; empty if there are none.
    """
    names = [str(item) for item in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    close = close or [item for item in names if item.lower() == str(name).lower()]
    if close:
        return f"; did you mean '{prefix}{close[0]}'?"
    if len(names) > MAX_LISTED:
        names[MAX_LISTED:] = ["..."]
    return f"; expected one of: {', '.join(names)}" if names else ""


def require_package(package: str, wanted_by: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: its dotted name.
        wanted_by: the key or option that needs it, for the error message.

    Raises:
        UserError: the package is not installed.
    """
    name = package.partition(".")[0]
    try:
        module = importlib.import_module(package)
        if getattr(module, "__file__", None) or not hasattr(module, "__path__"):
            return module  # else a folder of this name, such as `wandb/` in the working directory
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise  # installed, but something that it needs is missing
    raise UserError(f"{wanted_by}: {name} is not installed: pip install {name}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is such an error of Python, NumPy, PyTorch (CPU or GPU) or OpenCV."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    text = str(error)
    words = ("out of memory", "can't allocate memory", "Insufficient memory")
    return named or any(word in text for word in words)


def counted(count: int, unit: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"
