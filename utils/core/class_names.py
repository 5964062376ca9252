"""Class names: the `data.classes` key, and defaults for weights that come without names."""

from collections.abc import Sequence
from pathlib import Path

from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError, nearest

CLASS_LIST_DIR = PROJECT_DIR / "model_data"
WELL_KNOWN = {80: "coco_classes.txt", 20: "voc_classes.txt"}


def read_class_names(classes: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Return the class names given by the key `data.classes`.

    Args:
        classes: names, or a text file with one name per line, as given or in the project's
            `model_data`.

    Returns:
        The names; None if `classes` is None.

    Raises:
        UserError: the file cannot be read, or the list is empty or contains duplicates.
    """
    if classes is None:
        return None
    if not isinstance(classes, str):
        return checked_names(classes, "data.classes")
    for path in (Path(classes), CLASS_LIST_DIR / classes):
        if path.is_file():
            return checked_names(read_lines(path), f"data.classes: {path}")
    known = sorted(path.name for path in CLASS_LIST_DIR.glob("*.txt"))
    raise UserError(
        f"data.classes: no file {classes}, here or in model_data{nearest(classes, known)}"
    )


def default_class_names(count: int) -> list[str]:
    """Names for weights without any: COCO's for 80 classes, VOC's for 20, else numbers."""
    if count in WELL_KNOWN:
        return read_lines(CLASS_LIST_DIR / WELL_KNOWN[count])
    return [f"class {index}" for index in range(count)]


def checked_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check a list of class names.

    Args:
        names: the names.
        where: where they come from, for the error message.

    Raises:
        UserError: the list is empty or contains duplicates.
    """
    if not names:
        raise UserError(f"{where}: class list is empty")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: class '{name}' is listed twice")
    return tuple(names)


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, stripped.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from None
    return [line.strip() for line in lines if line.strip()]
