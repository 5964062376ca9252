"""Class names: the `data.classes` key, and defaults for weights that come without names."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unicodedata import category, east_asian_width

from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import find_first, list_folder
from utils.core.text import read_text, split_lines

CLASS_LIST_DIR = PROJECT_DIR / "model_data"
WELL_KNOWN = {80: "coco_classes.txt", 20: "voc_classes.txt"}
MAX_NAME = 200  # characters
UNUSABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, surrogates, line separators

OnRead = Callable[[Path, str], None]  # called with a text file and its encoding


def read_class_names(
    classes: Sequence[str] | str | None, on_read: OnRead | None = None
) -> tuple[str, ...] | None:
    """Return the class names given by the key `data.classes`.

    Args:
        classes: names, or a text file with one name per line, as given or in the project's
            `model_data`.
        on_read: called with the text file and its encoding.

    Returns:
        The names; None if `classes` is None.

    Raises:
        UserError: the file cannot be read, or the list is empty, contains duplicates or what
            cannot be a name.
    """
    if classes is None:
        return None
    if not isinstance(classes, str):
        return checked_names(classes, "data.classes")
    path = find_first((Path(classes), CLASS_LIST_DIR / classes))
    if path is not None:
        return checked_names(read_lines(path, on_read, "data.classes:"), f"data.classes: {path}")
    known = [name for name in list_folder(CLASS_LIST_DIR) if name.endswith(".txt")]
    raise UserError(
        f"data.classes: no file {classes}, here or in model_data{nearest(classes, known)}"
    )


def default_class_names(count: int) -> list[str]:
    """Names for weights without any: COCO's for 80 classes, VOC's for 20, else numbers."""
    if count in WELL_KNOWN:
        return read_lines(CLASS_LIST_DIR / WELL_KNOWN[count])
    return [f"class {index}" for index in range(count)]


def padded(names: Iterable[str]) -> list[str]:
    """Names of the same width in a terminal, where a Chinese character takes two columns."""
    shown = list(names)
    widths = [len(name) + sum(east_asian_width(c) in "WF" for c in name) for name in shown]
    longest = max(widths, default=0)
    return [name + " " * (longest - width) for name, width in zip(shown, widths, strict=True)]


def checked_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check a list of class names.

    Args:
        names: the names.
        where: where they come from, for the error message.

    Raises:
        UserError: the list is empty, contains duplicates or what cannot be a name.
    """
    if not names:
        raise UserError(f"{where}: the class list is empty: expected one name per class")
    for name in names:
        problem = name_problem(name)
        if problem:
            raise UserError(f"{where}: {problem}")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{where}: class '{name}' is listed twice")
    return tuple(names)


def name_problem(name: object) -> str:
    """What is wrong with a class name, with what was expected; empty if it is usable."""
    if not isinstance(name, str):
        return f"expected a class name, got {shorten(name)}: write it in quotes"
    if not name.strip():
        return "expected a class name, got none"
    if len(name) > MAX_NAME or any(category(letter) in UNUSABLE for letter in name):
        return f"class name '{shorten(name)}': expected one line of at most {MAX_NAME} characters"
    return ""


def read_lines(path: Path, on_read: OnRead | None = None, title: str = "") -> list[str]:
    """The non-empty lines of a text file, stripped.

    Args:
        path: the file; for its encoding, see `utils.core.text`.
        on_read: called with the file and its encoding.
        title: put before the path in error messages, such as an option.

    Raises:
        ReadError: the file cannot be read or decoded.
    """
    text, encoding = read_text(path, title)
    if on_read is not None:
        on_read(path, encoding)
    return [line for line in split_lines(text) if line]
