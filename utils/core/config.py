"""Configurations: YAML files, `base:` inheritance, overrides, one-line errors.

The fields are in `utils.core.schema`. Inside the program, overrides are a mapping from dotted key
to value (`{"train.epochs": 10}`); `parse_overrides` reads it from `KEY=VALUE` words.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from utils.core.cli import search_folder
from utils.core.errors import UserError, nearest, shorten
from utils.core.files import check_input, is_file
from utils.core.schema import RENAMED, Config
from utils.core.yaml_text import dump_yaml, load_yaml, parse_yaml

PROJECT_DIR = Path(__file__).resolve().parents[2]
CONFIG_DIR = PROJECT_DIR / "configs"

SECTIONS = tuple(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type(BaseModel))
)
# Pydantic's types of error, by their start -> what was expected
COMPARISONS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
EXPECTED = {
    "int_": "an integer",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
    "string_unicode": "valid Unicode",
    "string_": "text",
    "list_": "a list",
    "tuple_": "a list",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "missing": "one more item",
    "dict_": "a mapping",
    "model_": "a section with keys",
}

# Keys that may change when a run is resumed -> why the training stays the same, or what differs.
# `predict.*` may change, too: training does not read it.
RESUME_KEYS = {
    "train.epochs": "a larger number prolongs the training; the cosine schedule then spans the new "
    "number from here on, so the result differs from a run that was planned this long",
    "train.patience": "only decides when to stop",
    "train.eval_every": "only decides which epochs are candidates for best.pt",
    "train.save_minutes": "only decides how often last.pt is written",
    "train.log": "only adds logs",
    "train.tensorboard": "only adds logs",
    "train.workers": "batches do not depend on the number of threads that decode images",
    "eval.batch_size": "metrics do not depend on it, except for rounding",
    "data.root": "the same data may have moved",
    "data.cache": "decoded images are the same wherever they are kept",
    "data.cache_gb": "decoded images are the same wherever they are kept",
    "data.gpu_cache_gb": "decoded images are the same wherever they are kept",
    "data.read_timeout": "only decides when to give up",
    "threads": "sums are taken in another order: the same up to rounding, not bit for bit",
    "device": "sums are taken in another order: the same up to rounding, not bit for bit",
    "backend": "only used to run the trained network",
    "output": "the folder in which the run is looked up",
}

USER_BLOCK = re.compile(r"\w:\w")  # in the text of `phi`, which may be nested

Layer = tuple[str, dict[str, Any]]  # where values come from, and the values
KeyPath = tuple[int | str, ...]  # keys and list indices that lead to a value


def load_config(name: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read the configuration of an experiment.

    If `phi` names a user's block, `package.module:Class`, it may lie beside the file.

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
    layers += _layers_of(changes, f"{path} with ")
    config = make_config(_set_keys(values, changes), partial(_find_origin, layers))
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
        key_path, message = _explain(error)
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
        changes: dotted key to value.

    Raises:
        UserError: unknown key or invalid value.
    """
    if not changes:
        return config
    values = _set_keys(config.model_dump(mode="json"), changes)
    return make_config(values, partial(_find_origin, _layers_of(changes)))


def check_resume_changes(changes: Mapping[str, Any]) -> None:
    """Refuse changes that would make a resumed run another training.

    Args:
        changes: dotted key to value, or nested.

    Raises:
        UserError: a key is neither in `RESUME_KEYS` nor in `predict`.
    """
    for key, _ in flatten(changes):
        if key not in RESUME_KEYS and not key.startswith("predict."):
            known = {name: name for name, _, _ in explain_fields()}
            hint = "" if key in known else f" (unknown key{nearest(key, known)})"
            raise UserError(
                f"--resume with {shorten(key)}=...: a resumed run can change only "
                f"{', '.join(RESUME_KEYS)} and predict.*; start a new run for others{hint}"
            )


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
        if not equals or not all(key.split(".")):
            raise UserError(f"override '{shorten(word)}': expected KEY=VALUE, e.g. train.epochs=10")
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
            yield f"{prefix}{name}", _as_yaml(field.default), meaning


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
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base: expected a configuration file, got {_shown(base)}")
    parent = path.parent / base
    if not is_file(parent):
        parent = find_config(base, f"{path}: base:")
    return [*_read_inherited(parent, (*children, path.resolve())), (path, values)]


def _layers_of(changes: Mapping[str, Any], prefix: str = "") -> list[Layer]:
    """Each change as a layer of its own, named like a word of the command line."""
    return [
        (f"{prefix}{shorten(as_words({key: value}))}", _set_keys({}, {key: value}))
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


def _set_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with the keys of `changes` replaced, which may be nested or dotted.

    Raises:
        UserError: a key lies below a value, or a whole section is set to null.
    """
    copied = dict(values)
    for key, value in flatten(changes):
        if value is None and key in SECTIONS:
            raise UserError(f"{key}: is a section; expected KEY=VALUE for keys in it")
        _set_key(copied, key, value)
    return copied


def _set_key(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for index, name in enumerate(sections):
        inner = values.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            above = ".".join(sections[: index + 1])
            raise UserError(
                f"{key}: {above} is not a section, it is set to {shorten(inner, quoted=True)}"
            )
        values[name] = dict(inner or {})
        values = values[name]
    values[last] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a nested configuration; `phi` may be a mapping itself."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "phi":
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _explain(error: ValidationError) -> tuple[KeyPath, str]:
    """The path of the first problem; and its key, what was expected and what was given."""
    problems = error.errors()
    path = _key_path(problems[0]["loc"])
    # the alternatives of a field, such as a word or a list, fail one by one: the deepest counts
    rivals = [item for item in problems if _key_path(item["loc"])[: len(path)] == path]
    path = max((_key_path(item["loc"]) for item in rivals), key=len)
    problem = next(item for item in rivals if _key_path(item["loc"]) == path)
    key = str(path[0])
    for part in path[1:]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    if key in RENAMED:
        return path, f"'{key}' is now called '{RENAMED[key]}'"
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return path, f"unknown key '{shorten(key)}'{_suggest(path)}"
    if problem["type"] == "value_error":
        return path, f"{key}: {problem['msg'].removeprefix('Value error, ')}"
    expected = dict.fromkeys(
        _expected(item, path) for item in rivals if _key_path(item["loc"]) == path
    )
    return path, f"{key}: expected {' or '.join(expected)}, got {_shown(problem['input'])}"


def _key_path(location: tuple[int | str, ...]) -> KeyPath:
    """The keys and list indices of an error's location, without the names of pydantic's types."""
    model: Any = Config
    for depth, name in enumerate(location):
        field = model.model_fields.get(name)
        if field is None:
            return location[: depth + 1]
        model = field.annotation
        if not isinstance(model, type(BaseModel)):
            inside = location[depth + 1 :]
            indices = [] if "[key]" in inside else [i for i in inside if isinstance(i, int)]
            return (*location[: depth + 1], *indices)
    return location


def _expected(problem: ErrorDetails, path: KeyPath) -> str:
    """What was expected, in words for pydantic's type of error."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in COMPARISONS:
        return describe_limits(_field(path))
    if kind == "literal_error":
        return str(context["expected"])
    if problem["loc"][-1] == "[key]":
        return "names as keys"
    if kind == "string_type" and isinstance(problem["input"], (int, float)):
        return "text (in quotes if it looks like a number)"
    for start, expected in EXPECTED.items():
        if kind.startswith(start):
            return expected.format(**context)
    return f"another value ({kind})"


def _field(path: KeyPath) -> FieldInfo:
    """The field that a key path leads to; list indices are ignored."""
    model: Any = Config
    for name in path:
        if isinstance(name, str):
            field = model.model_fields[name]
            model = field.annotation
    return field


def _shown(value: Any) -> str:
    """A value as the user wrote it, shortened."""
    words = {None: "nothing", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return shorten(value, quoted=True)


def _suggest(path: KeyPath) -> str:
    """A hint at the nearest key: the same name in another section, else in its own."""
    name = str(path[-1])
    keys = {key: key.rpartition(".")[2] for key, _, _ in explain_fields()}
    if name in keys:
        section, _, last = name.partition(".")
        return f"; expected it nested: {section}: {{{last}: ...}}"
    same = [f"'{key}'" for key, last in keys.items() if last == name]
    if same:
        return f"; did you mean {' or '.join(same)}?"
    own = _section_fields(path[:-1])
    close = difflib.get_close_matches(name, [*own, *keys.values()], n=1, cutoff=0.6)
    if close and close[0] not in own:
        return _suggest((close[0],))
    return nearest(name, own, "".join(f"{part}." for part in path[:-1]))


def _section_fields(path: KeyPath) -> list[str]:
    model: Any = _field(path).annotation if path else Config
    return list(model.model_fields)
