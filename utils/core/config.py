"""Configurations: YAML files, `base:` inheritance, one-line errors.

The fields are in `utils.core.schema`. Inside the program, changes are a mapping from dotted key
to value (`{"train.epochs": 10}`); `utils.core.overrides` reads it from `KEY=VALUE` words.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.core.cli import search_folder
from utils.core.config_errors import explain_error, show_value
from utils.core.config_fields import KeyPath
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import check_input, is_file
from utils.core.overrides import as_words, parse_overrides, plain_values, set_keys
from utils.core.schema import RENAMED, Config
from utils.core.yaml_text import dump_yaml, load_yaml

PROJECT_DIR = Path(__file__).resolve().parents[2]
CONFIG_DIR = PROJECT_DIR / "configs"

USER_BLOCK = re.compile(r"\w:\w")  # in the text of `phi`, which may be nested

Layer = tuple[str, dict[str, Any]]  # where values come from, and the values


def load_config(name: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read the configuration of an experiment.

    If `phi` names a user's block, `package.module:Class`, it may lie beside the file.

    Args:
        name: a YAML file, as given or in `configs/`, with or without `.yaml`.
        overrides: `KEY=VALUE` words, or dotted key to value; see `update_config`.

    Raises:
        UserError: names the file and the key: missing file, malformed YAML, unknown key or
            invalid value.
    """
    given = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    changes = plain_values(given)
    path = find_config(name)
    layers = [(str(file), values) for file, values in _read_inherited(path, ())]
    values: dict[str, Any] = {"name": path.stem}
    for _, layer in layers:
        values = _merge(values, layer)
    layers += _layers_of(changes, f"{path} with ")
    config = make_config(set_keys(values, changes), partial(_find_origin, layers))
    if USER_BLOCK.search(str(config.phi)):
        search_folder(path.absolute().parent)
    return config


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
        key_path, message = explain_error(error)
        where = origin if isinstance(origin, str) else origin(key_path)
        raise UserError(f"{where}: {message}") from None


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
        changes: dotted key to value; also NumPy's numbers, paths and devices.

    Raises:
        UserError: unknown key or invalid value.
    """
    if not changes:
        return config
    changes = plain_values(changes)
    values = set_keys(config.model_dump(mode="json"), changes)
    return make_config(values, partial(_find_origin, _layers_of(changes)))


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
        if is_file(candidate):
            return candidate
    if os.path.lexists(name):
        check_input(name, asked_by)  # says what it is instead
    known = sorted(path.name for path in CONFIG_DIR.glob("*.yaml"))
    hint = nearest(given.name, known)
    shown = shorten(str(name))
    raise UserError(f"{asked_by} {shown}: no such file, neither as given nor in configs/{hint}")


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


def _read_inherited(path: Path, children: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Read the values set in a file and in each file it inherits from, ancestors first."""
    if path.resolve() in children:
        raise UserError(f"{path}: base: inherits from itself")
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return [(path, values)]
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base: expected a configuration file, got {show_value(base)}")
    parent = path.parent / base
    if not is_file(parent):
        parent = find_config(base, f"{path}: base:")
    return [*_read_inherited(parent, (*children, path.resolve())), (path, values)]


def _layers_of(changes: Mapping[str, Any], prefix: str = "") -> list[Layer]:
    """Each change as a layer of its own, named like a word of the command line."""
    return [
        (f"{prefix}{shorten(as_words({key: value}))}", set_keys({}, {key: value}))
        for key, value in changes.items()
    ]


def _find_origin(layers: Sequence[Layer], key_path: KeyPath) -> str:
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
