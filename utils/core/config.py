"""Configurations: YAML files, `base:` inheritance, changed keys, one-line errors.

The fields themselves are in `utils.core.schema`. Inside the program a change is plain data, a mapping from dotted key
to value (`{"train.epochs": 10}`); `parse_overrides` makes one of the command line's `KEY=VALUE` words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from utils.core.errors import UserError, nearest
from utils.core.schema import RENAMED, Config

PROJECT_DIR = Path(__file__).resolve().parents[2]
CONFIG_DIR = PROJECT_DIR / "configs"

KeyPath = tuple[int | str, ...]  # the keys that lead to a value


def load_config(name: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read an experiment.

    Args:
        name: a YAML file, looked up as given, then under `configs/`.
        overrides: `KEY=VALUE` words, or what `parse_overrides` makes of them.

    Raises:
        UserError: file missing, YAML malformed, key unknown or value of the wrong type; names file and key.
    """
    changes = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    path = find_config(name)
    layers = [(str(file), values) for file, values in _read_inherited(path, ())]
    values: dict[str, Any] = {"name": path.stem}
    for _, layer in layers:
        values = _merge(values, layer)
    if changes:
        values = _changed(values, changes)
        layers.append((f"{path} with {as_words(changes)}", _changed({}, changes)))
    return make_config(values, lambda key_path: _holder(layers, key_path))


def make_config(
    values: Mapping[str, Any], origin: str | Callable[[KeyPath], str] = "configuration"
) -> Config:
    """Validate a nested mapping.

    Args:
        values: section and key to value, as in a YAML file.
        origin: what the error names, or a function that says what holds the value at a key path.

    Raises:
        UserError: key unknown or value of the wrong type.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        key_path = error.errors()[0]["loc"]
        where = origin if isinstance(origin, str) else origin(key_path)
        raise UserError(f"{where}: {_explain(error)}") from None


def restore_config(values: Mapping[str, Any], origin: str) -> Config:
    """Validate a configuration that an earlier version of the project may have saved: old names of keys are known.

    Raises:
        UserError: as for `make_config`.
    """
    upgraded = dict(values)
    for old, new in RENAMED.items():
        section, old_key = old.split(".")
        new_key = new.split(".")[1]
        saved = upgraded.get(section)
        if isinstance(saved, Mapping) and old_key in saved:
            upgraded[section] = {
                new_key if key == old_key else key: value for key, value in saved.items()
            }
    return make_config(upgraded, origin)


def update_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """The same configuration with other values.

    Args:
        config: is not modified.
        changes: dotted key to value.

    Raises:
        UserError: key unknown or value of the wrong type.
    """
    if not changes:
        return config
    return make_config(_changed(config.model_dump(mode="json"), changes), as_words(changes))


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as dotted key to value; values are parsed as YAML, of a repeated key the last one counts.

    Raises:
        UserError: a word without key or `=`, or a value that is not YAML.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"override '{word}': expected KEY=VALUE, e.g. train.epochs=10")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"override '{word}': the value is not valid YAML") from None
        changes.pop(key, None)  # the order of the keys is that of the words that count
        changes[key] = value
    return changes


def dump_config(config: Config) -> str:
    """YAML of every field, defaults included; `load_config` reads it back to an equal object."""
    values = config.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)


def find_config(name: str | Path, asked_by: str = "--config") -> Path:
    """The file `name`, or `configs/name`, with or without `.yaml`; `asked_by` is named in the error."""
    given = Path(name)
    for candidate in (given, CONFIG_DIR / given, CONFIG_DIR / f"{given}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(path.name for path in CONFIG_DIR.glob("*.yaml"))
    raise UserError(
        f"{asked_by} {name}: no such file, neither as given nor in configs/{nearest(given.name, known)}"
    )


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
        raise UserError(
            f"{path}: expected a mapping of keys to values, got {type(values).__name__}"
        )
    return values or {}


def explain_fields(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, meaning) of every field, for help texts."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(
            section, type(BaseModel)
        ):  # not issubclass: to Python 3.10 `list[str]` is a type, too
            yield from explain_fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _as_yaml(field.default), field.description or ""


def _as_yaml(value: Any) -> str:
    """A value on one line, as it is typed in YAML."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=1000).split(
        "\n"
    )[0]


def as_words(changes: Mapping[str, Any]) -> str:
    """Changes as they are typed on a command line, for messages."""
    return " ".join(f"{key}={_as_yaml(value)}" for key, value in changes.items())


def _read_inherited(path: Path, children: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Every file's own values, the oldest ancestor's first."""
    if path.resolve() in children:
        raise UserError(f"{path}: base: inherits from itself")
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return [(path, values)]
    parent = path.parent / str(base)
    if not parent.is_file():
        parent = find_config(str(base), f"{path}: base:")
    return [*_read_inherited(parent, (*children, path.resolve())), (path, values)]


def _holder(layers: Sequence[tuple[str, Mapping[str, Any]]], key_path: KeyPath) -> str:
    """The layer that a value comes from: of those that go deepest along its key path, the last, which wins."""
    return max(reversed(layers), key=lambda layer: _depth(layer[1], key_path))[0]


def _depth(values: Any, key_path: KeyPath) -> int:
    """How many steps of `key_path` lead through `values`."""
    if key_path and isinstance(values, Mapping) and key_path[0] in values:
        return 1 + _depth(values[key_path[0]], key_path[1:])
    return 0


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key, an empty one changes nothing; the rest, `phi: {...}` included, is replaced."""
    merged = dict(base)
    for key, value in top.items():
        both_sections = (
            isinstance(value or {}, Mapping) and isinstance(merged.get(key), dict) and key != "phi"
        )
        merged[key] = _merge(merged[key], value or {}) if both_sections else value
    return merged


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with the dotted keys of `changes` replaced."""
    copied = dict(values)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if rest:
            section = copied.get(first)
            copied[first] = _changed(section if isinstance(section, Mapping) else {}, {rest: value})
        else:
            copied[first] = value
    return copied


def _explain(error: ValidationError) -> str:
    """The first problem in one line: key, what was expected, what was found."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if key in RENAMED:
        return f"'{key}' is now called '{RENAMED[key]}'"
    if problem["type"] == "extra_forbidden":
        section = "".join(f"{name}." for name in path[:-1])
        return f"unknown key '{key}'{nearest(path[-1], _section_fields(path[:-1]), section)}"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    return f"{key}: {message}{found}" if key else message


def _section_fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Config
    for name in path:
        model = model.model_fields[name].annotation  # type: ignore[assignment]
    return list(model.model_fields)
