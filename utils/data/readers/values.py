"""Numbers, flags and identifiers from annotations, each read in one way for all formats."""

import re
from typing import Any

from utils.core.errors import shorten

LARGEST = 1e9  # of a number: far beyond any image, and exact in all later computations
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FLAGS = {
    **dict.fromkeys(("", "0", "0.0", "false", "no"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
}
UNKNOWN_SIZES = (None, "", "0", 0)


class BadValue(ValueError):
    """A value of an annotation that cannot be used: where, what was expected, what was found."""


def parse_number(value: Any, name: str) -> float:
    """A finite number, at most 1e9 in size.

    Args:
        value: decimal text, as in XML and text files, or a number, as in JSON.
        name: where it stands in its file, for the error message.

    Raises:
        BadValue: it is neither.
    """
    number: Any = None
    if type(value) in (int, float):  # not bool, which is an int, too
        number = value
    elif isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        number = float(value)
    if number is None or not abs(number) <= LARGEST:
        raise BadValue(f"{name}: expected a number up to 1e9, got {shown(value)}")
    return float(number)


def parse_flag(value: Any, name: str) -> bool:
    """0 or 1, as number or text; also true, false, yes, no, and nothing for false.

    Raises:
        BadValue: it is something else.
    """
    if value is None or isinstance(value, (str, int, float)):
        word = "" if value is None else str(value).strip().lower()
        if word in FLAGS:
            return FLAGS[word]
    raise BadValue(f"{name}: expected 0 or 1, got {shown(value)}")


def parse_id(value: Any, name: str) -> str:
    """An identifier in a form in which the integer 7, 7.0 and the text '7' are the same.

    Raises:
        BadValue: it is neither an integer nor text.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise BadValue(f"{name}: expected an integer or text, got {shown(value)}")


def parse_size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size that an annotation states, in pixels.

    Returns:
        (width, height), -1 for what is no size of an image; None if it states none.
    """
    if width in UNKNOWN_SIZES or height in UNKNOWN_SIZES:
        return None
    sides = []
    for value in (width, height):
        try:
            sides.append(int(parse_number(value, "size")))
        except BadValue:
            sides.append(-1)
    return sides[0], sides[1]


def shown(value: Any) -> str:
    """A value in an error message: short, on one line; text in quotes, nothing by that word."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "nothing"
    if isinstance(value, str):
        return f"'{shorten(value, 40)}'"
    if isinstance(value, (list, dict)):  # may be long or deep
        return "a list" if isinstance(value, list) else "an object"
    return shorten(value, 40)
