"""What the plots of all reports have in common: style, colors, files."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.text import Text

from nets.inference.fonts import find_font

# Okabe and Ito's color-blind-safe palette, gray first
COLORS = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
PLOT_STYLE: dict[Any, Any] = {  # a "$" in a name is not math
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "pdf.fonttype": 42,  # TrueType: many journals refuse matplotlib's default
    "svg.hashsalt": "figure",  # the same plot gives the same file
}
DPI = 170
# Format -> metadata that is left out, so that the same plot gives the same file
FORMATS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
BESIDE: dict[str, Any] = {  # a legend to the right of the axes
    "frameon": False,
    "loc": "upper left",
    "bbox_to_anchor": (1.01, 1.0),
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, in the common style."""
    with matplotlib.rc_context(PLOT_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as an image file."""
    return _save(figure, "png", dpi)


def to_files(figure: Figure) -> dict[str, bytes]:
    """The figure in all `FORMATS`: as an image, and for printing."""
    return {name: _save(figure, name, DPI) for name in FORMATS}


def _save(figure: Figure, name: str, dpi: int) -> bytes:
    stream = io.BytesIO()
    with chosen_fonts(figure):
        figure.savefig(stream, format=name, dpi=dpi, metadata=FORMATS[name])
    return stream.getvalue()


@contextmanager
def chosen_fonts(figure: Figure) -> Iterator[None]:
    """Draw a figure in this block: texts that matplotlib's font cannot render get another one."""
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(["DejaVu Sans", _family(find_font(text.get_text()))])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # `find_font` has said so
        yield


@lru_cache(maxsize=64)
def _family(path: str) -> str:
    """The name of a font file, known to matplotlib from then on."""
    fontManager.addfont(path)
    return FontProperties(fname=path).get_name()


def short_name(name: str, limit: int = 24) -> str:
    """A class name of at most `limit` characters."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def finish(axes: Axes, **labels: Any) -> None:
    """Set labels and titles, remove the frame, and add a grid."""
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
