"""The fields of a configuration, described: keys, defaults, ranges, meanings."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.core.schema import Config
from utils.core.yaml_text import dump_yaml

KeyPath = tuple[int | str, ...]  # keys and list indices that lead to a value


def explain_fields(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) of every field."""
    for name, field in model.model_fields.items():
        section = field.annotation
        # not issubclass(): in Python 3.10, `list[str]` is an instance of `type`, too
        if isinstance(section, type(BaseModel)):
            yield from explain_fields(section, f"{prefix}{name}.")
        else:
            limits = describe_limits(field)
            meaning = f"{field.description} ({limits})" if limits else str(field.description)
            yield f"{prefix}{name}", as_yaml(field.default), meaning


def describe_limits(field: FieldInfo) -> str:
    """The range of a field's numbers, such as `0 to 1` or `above 0, up to 10`; empty if none."""
    low = high = ""
    for item in _constraints(field.annotation, field.metadata):
        if isinstance(item, Ge):
            low = f"{item.ge:,}"
        elif isinstance(item, Gt):
            low = f"above {item.gt:,}"
        elif isinstance(item, Le):
            high = f", up to {item.le:,}" if low.startswith("above") else f" to {item.le:,}"
        elif isinstance(item, Lt):
            high = f" to below {item.lt:,}"
    return f"{low}{high}"


def _constraints(annotation: Any, metadata: Sequence[Any]) -> Iterator[Any]:
    """The constraints of a type and of the types inside it."""
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]
    for inner in get_args(annotation):
        yield from _constraints(inner, getattr(inner, "__metadata__", ()))


def find_field(path: KeyPath) -> FieldInfo:
    """The field that a key path leads to; list indices are ignored."""
    model: Any = Config
    for name in path:
        if isinstance(name, str):
            field = model.model_fields[name]
            model = field.annotation
    return field


def as_yaml(value: Any) -> str:
    """A value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return dump_yaml(plain, inline=True, width=1000).split("\n")[0]
