"""Changes of a configuration: `KEY=VALUE` words, dotted keys, nested mappings."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from utils.core.config_fields import as_yaml, explain_fields
from utils.core.errors import UserError, nearest, shorten
from utils.core.schema import Config
from utils.core.yaml_text import parse_yaml

SECTIONS = tuple(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type(BaseModel))
)
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


def plain_values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes with values as YAML has them: those of NumPy, paths and devices become such.

    Raises:
        UserError: a value is nothing that a configuration can hold.
    """
    return {key: _plain(value, key) for key, value in changes.items()}


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item, key) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, key) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, and tensors
        return _plain(value.tolist(), key)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "torch":  # torch.device, without importing PyTorch
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(
        f"{key}: expected a number, text, a list or a mapping, got {shorten(value, quoted=True)}"
    )


def as_words(changes: Mapping[str, Any]) -> str:
    """Changes as `KEY=VALUE` words, for messages."""
    return " ".join(f"{key}={as_yaml(value)}" for key, value in changes.items())


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a nested configuration; `phi` may be a mapping itself."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "phi":
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def set_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
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
