"""Values from files, checked against types; what does not fit is named in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from utils.core.errors import UserError, shorten
from utils.core.inputs import read_file

Value = TypeVar("Value")
MAX_BYTES = 64 * 2**20  # of a JSON file
MAX_VALUES = 10_000
MAX_DEPTH = 32
MAX_LENGTH = 10_000  # of a text, characters
MAX_INTEGER = 2**63


class SavedSection(BaseModel):
    """A part of a saved state: known keys, no conversions, finite numbers.

    Fields may be tensors or arrays.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


def validate(expected: type[Value], value: Any, origin: str, hint: str = "") -> Value:
    """Check a value from a file.

    Args:
        expected: the type, such as `list[str]` or a `SavedSection`. Nothing is converted; only
            integers count as floats, too.
        value: the value.
        origin: the file, and the key of the value if it is not the whole content.
        hint: what to do, put at the end of the message.

    Raises:
        UserError: names the origin, the key, what was expected and what was found.
    """
    try:
        return TypeAdapter(expected).validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error)}{hint}") from None


def validate_json(expected: type[Value], data: bytes | str, origin: str, hint: str = "") -> Value:
    """`validate` for JSON text; also refuses what is not JSON."""
    try:
        return TypeAdapter(expected).validate_json(data, strict=True)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error)}{hint}") from None


def read_json(expected: type[Value], path: Path, hint: str = "") -> Value:
    """`validate_json` for a file of the program's own.

    Raises:
        UserError: the file cannot be read, or does not hold such a value.
    """
    return validate_json(expected, read_file(path, max_bytes=MAX_BYTES), str(path), hint)


def explain(error: ValidationError) -> str:
    """The first problem: key, what was expected, what was found."""
    problem = error.errors(include_url=False)[0]
    message = expected_text(problem["msg"])
    if problem["type"] == "json_invalid":
        return shorten(f"not valid JSON: {message.removeprefix('Invalid JSON: ')}")
    key = ".".join(_key(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'"
    text = f"expected {message}, got {shown(problem['input'])}"
    return f"{key}: {text}" if key else text


def _key(part: int | str) -> str:
    return shorten(part, 60) if isinstance(part, str) else shown(part)


def expected_text(message: str) -> str:
    """`Input should be a valid integer` -> `a valid integer`."""
    if "should have at " in message:  # a list
        return message[message.index("at ") :].partition(" after")[0]
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return f"a value {message}" if message.startswith(("greater", "less")) else message


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    is_huge = isinstance(value, int) and abs(value) >= MAX_INTEGER
    if value is None or (isinstance(value, (bool, int, float)) and not is_huge):
        return repr(value)
    if isinstance(value, str):
        return shorten(repr(value[:100]), 60)
    return "a huge integer" if is_huge else f"a value of type {type(value).__name__}"


def check_plain(value: Any, origin: str) -> None:
    """Refuse a value that would be a trap to walk through.

    Pickled lists can contain themselves, or one another so often that they never end. So values
    are counted as often as they are met.

    Args:
        value: plain values, and lists and mappings of them.
        origin: the file and key that the value comes from.

    Raises:
        UserError: more than thousands of values, too many levels, or something that is not plain.
    """
    left = [(value, 1)]
    count = 0
    while left:
        item, depth = left.pop()
        children = _children(item)
        count += 1 + len(children)
        if not _is_plain(item):
            raise UserError(f"{origin}: expected plain values, got {shown(item)}")
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise UserError(
                f"{origin}: expected at most {MAX_VALUES:,} values in {MAX_DEPTH} levels"
            )
        left += [(child, depth + 1) for child in children]


def _children(value: Any) -> list[Any]:
    if type(value) in (list, tuple):
        return list(value)
    return [*value.keys(), *value.values()] if isinstance(value, Mapping) else []


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_LENGTH
    if isinstance(value, int):
        return abs(value) < MAX_INTEGER
    return value is None or isinstance(value, (float, list, tuple, dict))
