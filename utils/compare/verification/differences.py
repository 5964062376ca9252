"""What a verification found."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from utils.core.errors import shorten

RELATIVE, ABSOLUTE = 1e-6, 1e-9  # numbers that differ by less are the same on two machines
NOTHING = "nothing"


class Verification:
    """What was checked, and what differs.

    Attributes:
        checked: what was compared, one line each.
        differences: one line each.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.checked: list[str] = []
        self.differences: list[str] = []

    def compare(self, file: str, stored: Any, computed: Any) -> None:
        """Compare nested values key by key."""
        before, after = dict(_flatten(stored)), dict(_flatten(computed))
        for key in {**before, **after}:
            one, other = before.get(key, NOTHING), after.get(key, NOTHING)
            if not _is_same(one, other):
                self.differ(file, key, one, other)
        self.checked.append(f"{file}: {len(after)} values computed again")

    def differ(self, file: str, key: str, stored: Any, computed: Any) -> None:
        """Note a difference."""
        self.differences.append(
            f"{self.out / file}: {key}: stored {shorten(stored)}, computed {shorten(computed)}"
        )

    def lines(self) -> list[str]:
        """What the command prints."""
        count = len(self.differences)
        verdict = f"{count} differences" if count > 1 else "one difference"
        return [*self.checked, *self.differences, verdict if count else "nothing differs"]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings and lists."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield prefix.removesuffix("."), value
        return
    for key, inner in value.items():
        yield from _flatten(inner, f"{prefix}{key}.")


def _is_same(one: Any, other: Any) -> bool:
    if type(one) in (int, float) and type(other) in (int, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return one == other
