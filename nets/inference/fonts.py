"""Fonts that can render a class name.

The default is DejaVu Sans, which comes with matplotlib. For characters that it lacks, the first
installed font that has them all is used; without one, they appear as empty boxes.
"""

import unicodedata
import warnings
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

SKIPPED = ("emoji", "resort")  # color and placeholder fonts


@lru_cache(maxsize=64)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font file at a size in pixels."""
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=1024)
def find_font(name: str) -> str:
    """Return the file of the first font with all characters of `name`, and digits for the score."""
    default = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    needed = {ord(character) for character in name + "0123456789." if not character.isspace()}
    missing = needed - _characters(default)
    if not missing:
        return default
    for path in _installed_fonts():
        if needed <= _characters(path):
            return path
    script = unicodedata.name(chr(min(missing)), "these").split()[0]
    warnings.warn(  # the same text for all names of a script, so that it is shown once
        f"no installed font has the {script} characters of a name: shown as boxes; "
        "install one, such as Noto Sans",
        stacklevel=2,
    )
    return default


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """Files of the installed fonts; upright, sans and regular ones first, new ones last.

    Matplotlib keeps its list of fonts in a file, and does not notice those installed since.
    """
    from matplotlib import font_manager  # lists the machine's fonts, which can take seconds

    def preference(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str]:
        return (
            entry.style != "normal",
            "sans" not in entry.name.lower(),
            entry.weight not in (400, "normal"),
            entry.name,
        )

    fonts = sorted(font_manager.fontManager.ttflist, key=preference)
    listed = [
        font.fname for font in fonts if not any(word in font.name.lower() for word in SKIPPED)
    ]
    known = {font.fname for font in fonts}
    return (*listed, *sorted(set(font_manager.findSystemFonts()) - known))


@lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[int]:
    """Code points that a font can draw; empty if the file cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
