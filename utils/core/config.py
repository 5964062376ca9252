"""Loading a configuration: YAML, `base:` inheritance, `KEY=VALUE` overrides, one-line errors.

The fields themselves are in `utils.core.schema`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from utils.core.errors import UserError, nearest
from utils.core.schema import Config

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
Place = tuple[int | str, ...]  # the keys that lead to a value


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment.

    Args:
        name: a YAML file, looked up as given, then under `configs/`.
        overrides: `KEY=VALUE` strings; keys are dotted paths, values are parsed as YAML.

    Raises:
        UserError: file missing, YAML malformed, key unknown or value of the wrong type; names file and key.
    """
    path = find_config(name)
    layers = [(str(file), values) for file, values in _read_inherited(path, ())]
    values: dict[str, Any] = {"name": path.stem}
    for _, layer in layers:
        values = _merge(values, layer)
    if overrides:
        layers.append((f"{path} with {' '.join(overrides)}", {}))
    for override in overrides:
        _apply_override(values, override)
        _apply_override(layers[-1][1], override)
    return make_config(values, lambda place: _holder(layers, place))


def make_config(values: Mapping[str, Any], origin: str | Callable[[Place], str] = "configuration") -> Config:
    """Validate a nested dictionary; `origin` is named in the error, or says what holds the key at a place."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        raise UserError(f"{origin if isinstance(origin, str) else origin(place)}: {_explain(error)}") from None


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """The same configuration with `KEY=VALUE` overrides applied."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply_override(values, override)
    return make_config(values, " ".join(overrides)) if overrides else config


def dump_config(config: Config) -> str:
    """YAML of every field, defaults included; `load_config` reads it back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, default_flow_style=None)


def find_config(name: str | Path, asked_by: str = "--config") -> Path:
    """The file `name`, or `configs/name`, with or without `.yaml`; `asked_by` is named in the error."""
    given = Path(name)
    candidates = [given, CONFIG_DIR / given, CONFIG_DIR / f"{given}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(path.name for path in CONFIG_DIR.glob("*.yaml"))
    raise UserError(f"{asked_by} {name}: no such file, neither as given nor in configs/{nearest(given.name, known)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file holds an empty one.

    Raises:
        UserError: not readable, not YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values or {}, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    return values or {}


def explain_fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, meaning) of every field, for help texts."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type(BaseModel)):  # not issubclass: to Python 3.10 `list[str]` is a type, too
            yield from explain_fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _yaml_text(field.default), field.description or ""


def _yaml_text(value: Any) -> str:
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]


def _read_inherited(path: Path, children: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Every file's own values, the oldest ancestor's first."""
    if path.resolve() in children:
        raise UserError(f"{path}: base: inherits from itself")
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return [(path, values)]
    parent = path.parent / str(base)
    parent = parent if parent.is_file() else find_config(str(base), f"{path}: base:")
    return [*_read_inherited(parent, (*children, path.resolve())), (path, values)]


def _holder(layers: Sequence[tuple[str, Mapping[str, Any]]], place: Place) -> str:
    """The layer that a value comes from: of those that go deepest towards its place, the last, which wins."""
    return max(reversed(layers), key=lambda layer: _depth(layer[1], place))[0]


def _depth(values: Any, place: Place) -> int:
    """How many steps of `place` lead through `values`."""
    if place and isinstance(values, Mapping) and place[0] in values:
        return 1 + _depth(values[place[0]], place[1:])
    return 0


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key, an empty one changes nothing; the rest, `phi: {...}` included, is replaced."""
    merged = dict(base)
    for key, value in top.items():
        both_sections = isinstance(value or {}, Mapping) and isinstance(merged.get(key), dict) and key != "phi"
        merged[key] = _merge(merged[key], value or {}) if both_sections else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"override '{override}': expected KEY=VALUE, e.g. train.epochs=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"override '{override}': the value is not valid YAML") from None
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, Mapping) else {}
        values = values[section]
    values[last] = value


def _explain(error: ValidationError) -> str:
    """The first problem in one line: key, what was expected, what was found."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section = "".join(f"{name}." for name in path[:-1])
        return f"unknown key '{key}'{nearest(path[-1], _section_fields(path[:-1]), section)}"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    return f"{key}: {message}{found}" if key else f"{message}"


def _section_fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Config
    for name in path:
        model = model.model_fields[name].annotation  # type: ignore[assignment]
    return list(model.model_fields)
