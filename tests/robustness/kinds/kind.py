"""A kind of file that the program reads: valid contents, and how it is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.yaml_text import dump_yaml


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: where the file is written.
        load: reads it; asserts that what it returns can be used.
        files: contents of valid files.
        is_text: whether words and lines can be changed.
        values: nested values that `write` makes into the content of a file.
        write: see `values`.
        share: number of loads relative to other kinds; less for files that take long to read.
    """

    path: Path
    load: Callable[[Path], object]
    files: tuple[bytes, ...]
    is_text: bool = False
    values: tuple[Any, ...] = ()
    write: Callable[[Any], bytes] = lambda value: b""
    share: float = 1.0


def to_json(value: Any) -> bytes:
    return json.dumps(value, skipkeys=True).encode()


def to_yaml(value: Any) -> bytes:
    return dump_yaml(value).encode("utf-8", "surrogatepass")
