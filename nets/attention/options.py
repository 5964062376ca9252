"""Options of a block: its keyword parameters, their types and ranges, checked before the block is built.

The signature is the only declaration: `def __init__(self, channels: int, *, reduction: Count = 16)` gives the option
`reduction`, an integer of at least 1. Nothing is coerced: neither "8" nor 8.5 is an integer.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from utils.core.errors import UserError, nearest


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


Count = Annotated[int, Field(ge=1)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Share = Annotated[float, Field(ge=0, lt=1)]


def check_options(block: str, make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `given`, checked against the parameters that `make` has after `channels`.

    Raises:
        UserError: naming `block.option`, for an unknown or missing option or a value of another type or range.
    """
    declared = _parameters(block, make)
    open_ended = any(item.kind is item.VAR_KEYWORD for item in declared.values())
    named = {
        name: item
        for name, item in declared.items()
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    for name in given:
        if name not in named and not open_ended:
            raise UserError(
                f"{block}: unknown option '{name}'{nearest(name, named) or '; it has no options'}"
            )
    for name, item in named.items():
        if item.default is item.empty and name not in given:
            raise UserError(f"{block}.{name}: a value is required, it has no default")
    hints = _hints(make)
    return {
        name: _checked(f"{block}.{name}", hints.get(name, Any), value)
        for name, value in given.items()
    }


def _parameters(block: str, make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters after the first, which takes the channels."""
    found = list(inspect.signature(make).parameters.values())
    if not found or found[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise UserError(
            f"{block}: __init__ does not take the channels; expected __init__(self, channels, **options)"
        )
    return {item.name: item for item in found[1:]}


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    target = make.__init__ if inspect.isclass(make) else make
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError:  # annotations that only a type checker can resolve
        return {}


def _checked(where: str, annotation: Any, value: Any) -> Any:
    try:
        adapter = TypeAdapter(annotation)
    except PydanticUserError:  # a type that pydantic does not know: the block itself must check
        return value
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        wanted = dict.fromkeys(_wanted(item["msg"]) for item in error.errors())
        raise UserError(f"{where}: expected {' or '.join(wanted)}, got {value!r}") from None


def _wanted(message: str) -> str:
    """`Input should be a valid integer` -> `a valid integer`."""
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return f"a value {message}" if message.startswith(("greater", "less")) else message
