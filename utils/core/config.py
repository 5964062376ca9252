"""Configurations: YAML files, `base:` inheritance, overrides, one-line errors.

The fields are in `utils.core.schema`. Inside the program, overrides are a mapping from dotted key
to value (`{"train.epochs": 10}`); `parse_overrides` reads it from `KEY=VALUE` words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from utils.core.errors import UserError, nearest, shorten
from utils.core.schema import RENAMED, Config
from utils.core.yaml_text import dump_yaml, load_yaml, parse_yaml

PROJECT_DIR = Path(__file__).resolve().parents[2]
CONFIG_DIR = PROJECT_DIR / "configs"

KeyPath = tuple[int | str, ...]  # keys and list indices that lead to a value


def load_config(name: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read the configuration of an experiment.

    Args:
        name: a YAML file, as given or in `configs/`, with or without `.yaml`.
        overrides: `KEY=VALUE` words, or dotted key to value.

    Raises:
        UserError: names the file and the key: missing file, malformed YAML, unknown key or
            invalid value.
    """
    changes = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    path = find_config(name)
    layers = [(str(file), values) for file, values in _read_inherited(path, ())]
    values: dict[str, Any] = {"name": path.stem}
    for _, layer in layers:
        values = _merge(values, layer)
    if changes:
        values = _set_keys(values, changes)
        layers.append((f"{path} with {as_words(changes)}", _set_keys({}, changes)))
    return make_config(values, lambda key_path: _find_origin(layers, key_path))


def make_config(
    values: Mapping[str, Any], origin: str | Callable[[KeyPath], str] = "configuration"
) -> Config:
    """Validate a nested mapping.

    Args:
        values: sections and keys, as in a YAML file.
        origin: where the values come from, for the error message; or a function that returns it
            for a key path.

    Raises:
        UserError: unknown key or invalid value.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        key_path = error.errors()[0]["loc"]
        where = origin if isinstance(origin, str) else origin(key_path)
        raise UserError(f"{where}: {_explain(error)}") from None


def restore_config(values: Mapping[str, Any], origin: str) -> Config:
    """Validate a saved configuration, which may use former names of keys.

    Raises:
        UserError: as for `make_config`.
    """
    upgraded = dict(values)
    for old, new in RENAMED.items():
        section, old_key = old.split(".")
        _, new_key = new.split(".")
        saved = upgraded.get(section)
        if isinstance(saved, Mapping) and old_key in saved:
            renamed = dict(saved)
            renamed[new_key] = renamed.pop(old_key)
            upgraded[section] = renamed
    return make_config(upgraded, origin)


def update_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy of a configuration with some values changed.

    Args:
        config: not modified.
        changes: dotted key to value.

    Raises:
        UserError: unknown key or invalid value.
    """
    if not changes:
        return config
    return make_config(_set_keys(config.model_dump(mode="json"), changes), as_words(changes))


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Parse `KEY=VALUE` words into dotted key to value.

    Values are YAML. If a key is repeated, its last value counts.

    Raises:
        UserError: a word without a key or `=`, or a value that is not YAML.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"override '{word}': expected KEY=VALUE, e.g. train.epochs=10")
        value = parse_yaml(text, f"override '{shorten(word)}'")
        changes.pop(key, None)  # a repeated key moves to the end
        changes[key] = value
    return changes


def dump_config(config: Config) -> str:
    """YAML text with every field, defaults included; `load_config` reads it back unchanged."""
    values = config.model_dump(mode="json")
    return dump_yaml(values)


def find_config(name: str | Path, asked_by: str = "--config") -> Path:
    """Find a configuration file.

    Args:
        name: a file as given, or one in `configs/`, with or without `.yaml`.
        asked_by: the option or key that names it, for the error message.

    Raises:
        UserError: no such file.
    """
    given = Path(name)
    for candidate in (given, CONFIG_DIR / given, CONFIG_DIR / f"{given}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(path.name for path in CONFIG_DIR.glob("*.yaml"))
    hint = nearest(given.name, known)
    raise UserError(f"{asked_by} {name}: no such file, neither as given nor in configs/{hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file gives an empty mapping.

    Raises:
        UserError: the file cannot be read, or is not a YAML mapping.
    """
    values = load_yaml(path)
    if not isinstance(values or {}, dict):
        raise UserError(
            f"{path}: expected a mapping of keys to values, got {type(values).__name__}"
        )
    return values or {}


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
            yield f"{prefix}{name}", _as_yaml(field.default), field.description or ""


def _as_yaml(value: Any) -> str:
    """A value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return dump_yaml(plain, inline=True, width=1000).split("\n")[0]


def as_words(changes: Mapping[str, Any]) -> str:
    """Changes as `KEY=VALUE` words, for messages."""
    return " ".join(f"{key}={_as_yaml(value)}" for key, value in changes.items())


def _read_inherited(path: Path, children: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Read the values set in a file and in each file it inherits from, ancestors first."""
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


def _find_origin(layers: Sequence[tuple[str, Mapping[str, Any]]], key_path: KeyPath) -> str:
    """The layer that set a value: the last of those that reach deepest along its key path."""
    return max(reversed(layers), key=lambda layer: _depth(layer[1], key_path))[0]


def _depth(values: Any, key_path: KeyPath) -> int:
    """How many keys of `key_path` exist in `values`, from its start."""
    if key_path and isinstance(values, Mapping) and key_path[0] in values:
        return 1 + _depth(values[key_path[0]], key_path[1:])
    return 0


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sections key by key and replace the rest, `phi: {...}` included."""
    merged = dict(base)
    for key, value in top.items():
        section = {} if value is None else value  # an empty section changes nothing
        inherited = merged.get(key)
        if key != "phi" and isinstance(inherited, dict) and isinstance(section, Mapping):
            merged[key] = _merge(inherited, section)
        else:
            merged[key] = value
    return merged


def _set_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with the dotted keys of `changes` replaced."""
    copied = dict(values)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if rest:
            section = copied.get(first)
            old = section if isinstance(section, Mapping) else {}
            copied[first] = _set_keys(old, {rest: value})
        else:
            copied[first] = value
    return copied


def _explain(error: ValidationError) -> str:
    """The first problem in one line: key, what was expected, what was given."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if key in RENAMED:
        return f"'{key}' is now called '{RENAMED[key]}'"
    if problem["type"] == "extra_forbidden":
        section = "".join(f"{name}." for name in path[:-1])
        return f"unknown key '{key}'{nearest(path[-1], _section_fields(path[:-1]), section)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    return f"{key}: {message}{given}" if key else message


def _section_fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Config
    for name in path:
        model = model.model_fields[name].annotation  # type: ignore[assignment]
    return list(model.model_fields)
