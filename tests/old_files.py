"""Configurations as versions before some keys were renamed saved them."""

from typing import Any

from utils.core.schema import RENAMED, Config


def with_old_keys(config: Config) -> dict[str, Any]:
    """The saved configuration under the old names of its keys."""
    values = config.model_dump(mode="json")
    for old, new in RENAMED.items():
        section, key = new.split(".")
        values[section][old.split(".")[1]] = values[section].pop(key)
    return values
