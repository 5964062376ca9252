"""Settings of a comparison: from attention names or a YAML file to configurations."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nets import attention
from utils.compare.planning.plan import FIXED_KEYS, Setting
from utils.core.config import find_config, read_yaml, update_config
from utils.core.errors import UserError, shorten
from utils.core.overrides import flatten
from utils.core.schema import MAX_NAME, Config
from utils.core.yaml_text import parse_yaml

# All settings are measured on the same images, but these keys of `data` may still differ.
FREE_DATA_KEYS = {"train", "cache", "cache_gb", "gpu_cache_gb", "download", "shapes_train"}


def read_phi(phi: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings that differ in attention only; one given twice is compared with itself."""
    overrides_by_name: dict[str, dict[str, Any]] = {}
    for text in phi:
        spec = parse_yaml(text, f"--phi {shorten(text)}")
        name = base_name = _describe_phi(spec)
        number = 1
        while name in overrides_by_name:
            number += 1
            name = f"{base_name}-{number}"
        overrides_by_name[name] = {"phi": spec}
    return overrides_by_name


def _describe_phi(spec: Any) -> str:
    if isinstance(spec, Mapping) and "name" not in spec:
        return ",".join(f"{site}={attention.describe(block)}" for site, block in spec.items())
    return attention.describe(spec)


def read_settings(name: str) -> dict[str, dict[str, Any]]:
    """Settings of a YAML file: name -> overrides, nested or with dotted keys.

    Raises:
        UserError: the file cannot be read, or is no mapping of mappings.
    """
    path = find_config(name, "--settings")
    values = read_yaml(path)
    if not values:
        raise UserError(f"{path}: expected settings, name: {{key: value}}, got none")
    for key, value in values.items():
        if not isinstance(value or {}, dict):
            raise UserError(f"{path}: {key}: expected overrides as a mapping, got {value!r}")
    return {str(key): value or {} for key, value in values.items()}


def make_settings(
    base: Config, overrides_by_name: Mapping[str, Mapping[str, Any]]
) -> tuple[Setting, ...]:
    """Settings as changes of a configuration.

    Raises:
        UserError: a change is not valid, or two settings have the same folder.
    """
    settings = []
    for name, overrides in overrides_by_name.items():
        settings.append(_make_setting(base, name, dict(flatten(overrides))))
    return distinct(settings)


def distinct(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Return the settings.

    Raises:
        UserError: two have the same folder; not every file system distinguishes Se from se.
    """
    folders = set()
    for setting in settings:
        if setting.folder.lower() in folders:
            raise UserError(
                f"setting '{setting.name}': another setting has the same folder"
                f" '{setting.folder}'; rename one of them"
            )
        folders.add(setting.folder.lower())
    return tuple(settings)


def folder_name(name: str) -> str:
    """A setting's name as a folder name; a long one is cut off and told apart by a checksum."""
    folder = re.sub(r"[^\w.=,()+-]+", "_", name).strip(".") or "_"
    if len(folder.encode()) <= MAX_NAME:
        return folder
    return f"{folder[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _make_setting(base: Config, name: str, changes: dict[str, Any]) -> Setting:
    seed_offset = changes.pop("seed", 0)
    if type(seed_offset) is not int:
        raise UserError(
            f"setting '{name}': seed: expected an integer, added to --seeds, got {seed_offset!r}"
        )
    for key in FIXED_KEYS:
        if key in changes:
            raise UserError(f"setting '{name}': {key} is set by the comparison and cannot vary")
    try:
        config = update_config(base, changes)
    except UserError as error:
        raise UserError(f"setting '{name}': {error}") from None
    return Setting(name, folder_name(name), _with_selection(config, name), seed_offset)


def _with_selection(config: Config, name: str) -> Config:
    """Settle which epoch is scored: never one chosen on the images that settings are scored on.

    The best of several evaluations is the better, the noisier the curve is; so a setting with a
    noisy curve would have an advantage.
    """
    train = config.train
    if config.data.test is not None:
        return update_config(config, {"train.select": train.select or "best"})
    problem = None
    if train.patience:
        problem = f"train.patience={train.patience}: would stop at an epoch chosen on"
    if train.select == "best":
        problem = "train.select=best: would choose the epoch on"
    if problem is not None:
        raise UserError(
            f"setting '{name}': {problem} the images that the settings are scored on; leave it "
            "out, or name a third split as data.test"
        )
    return update_config(config, {"train.select": "last"})


def refuse_other_images(settings: Sequence[Setting]) -> None:
    """Check that all settings are scored on the same images.

    Raises:
        UserError: they are not.
    """
    expected = settings[0].config.data.model_dump(exclude=FREE_DATA_KEYS)
    for setting in settings[1:]:
        data = setting.config.data.model_dump(exclude=FREE_DATA_KEYS)
        for key, value in expected.items():
            if data[key] != value:
                raise UserError(
                    f"setting '{setting.name}': data.{key} differs;"
                    " settings are compared on the same test images"
                )
