"""Options of a block: keyword parameters whose types and ranges are checked before it is built.

The signature is the only declaration: `__init__(self, channels, *, reduction: PositiveInt = 16)`
gives the option `reduction`, an integer of at least 1. Values are not converted: neither "8" nor
8.5 is an integer. A tuple, set or enumeration may be given as JSON would hold it.
"""

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from utils.core.errors import UserError, nearest, shorten
from utils.core.validation import expected_text


def _check_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


# Upper bounds are checked before anything is allocated. The widest feature map has 512 channels,
# and the largest map of a 416 x 416 input 208 x 208 positions.
PositiveInt = Annotated[int, Field(ge=1, le=4096)]  # widths, and what divides them
SmallInt = Annotated[int, Field(ge=1, le=64)]  # repetitions, branches, strides, sides of a grid
SmallOrZero = Annotated[int, Field(ge=0, le=64)]  # shifts and margins
OddInt = Annotated[int, Field(ge=1, le=63), AfterValidator(_check_odd)]  # sides of a kernel
KernelSizes = Annotated[Sequence[OddInt], Field(max_length=16)]
ParameterCount = Annotated[int, Field(ge=1, le=10**9)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
MlpRatio = Annotated[float, Field(ge=0, le=16)]  # hidden width of an MLP over C; 0: no MLP
Share = Annotated[float, Field(gt=0, le=1)]


def check_options(
    block: str, factory: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Check options against the parameters of `factory` that follow the channels.

    Args:
        block: the block's name, for messages.
        factory: called as `factory(channels, **options)`.
        options: the user's options, name to value.

    Returns:
        The options, with their values checked.

    Raises:
        UserError: an option is unknown, missing, or of the wrong type or range; names
            `block.option`.
    """
    parameters = _parameters_after_channels(block, factory)
    takes_any = any(item.kind is item.VAR_KEYWORD for item in parameters)
    declared = {
        item.name: item
        for item in parameters
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    for name in options:
        if name not in declared and not takes_any:
            hint = nearest(name, declared) or "; it has no options"
            raise UserError(f"{block}: unknown option '{shorten(name)}'{hint}")
    for name, parameter in declared.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f"{block}.{name}: a value is required, it has no default")
    hints = _type_hints(factory)
    return {
        name: _check_value(f"{block}.{name}", hints.get(name, Any), value)
        for name, value in options.items()
    }


def _parameters_after_channels(block: str, factory: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(factory).parameters.values())
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    if not parameters or parameters[0].kind not in positional:
        raise UserError(
            f"{block}: __init__ does not take the channels; "
            "expected __init__(self, channels, **options)"
        )
    return parameters[1:]


def _type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # only a type checker resolves them
        return {}


def _check_value(where: str, annotation: Any, value: Any) -> Any:
    try:
        adapter = TypeAdapter(annotation)
    except PydanticUserError:  # pydantic does not know the type: the block itself must check
        return value
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        with suppress(ValidationError, TypeError, ValueError):
            # what YAML and checkpoints cannot hold, such as a tuple, they hold as JSON does
            return adapter.validate_json(json.dumps(value), strict=True)
        expected = dict.fromkeys(expected_text(item["msg"]) for item in error.errors())
        shown = shorten(value, quoted=True)
        raise UserError(f"{where}: expected {' or '.join(expected)}, got {shown}") from None
