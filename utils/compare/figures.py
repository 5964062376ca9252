"""The images of a report, as PNG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.compare.analysis import Comparison, Setting

# Okabe and Ito's colors, which the color-blind can tell apart; the first is the baseline's
COLORS = ("#444444", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
STYLE: dict[Any, Any] = {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10}
DPI = 170


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _plain(axes: Axes, **labels: Any) -> None:
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def colors(comparison: Comparison) -> dict[str, str]:
    """Setting -> color; a control has the color of what it controls."""
    order = [
        comparison.plan.baseline,
        *(one.name for one in comparison.settings if not one.control_of),
    ]
    own = {name: COLORS[place % len(COLORS)] for place, name in enumerate(dict.fromkeys(order))}
    return {one.name: own.get(one.control_of or one.name, COLORS[0]) for one in comparison.settings}


def differences(comparison: Comparison) -> bytes:
    """Every pair's mean AP difference with its intervals over seeds, over images and over both; dots are seeds."""
    pairs = comparison.pairs
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.2 + 0.75 * len(pairs)), layout="constrained")
        axes = figure.add_subplot()
        kinds = (
            ("over seeds", "#0072B2", -0.2),
            ("over test images", "#D55E00", 0.0),
            ("over both", "#444444", 0.2),
        )
        for row, pair in enumerate(pairs):
            for (label, color, shift), (low, high) in zip(
                kinds, ((pair.ap.low, pair.ap.high), pair.images, pair.combined), strict=True
            ):
                y, name = row + shift, label if row == 0 else None
                axes.plot(
                    (low, high),
                    (y, y),
                    color=color,
                    linewidth=2.4,
                    solid_capstyle="butt",
                    label=name,
                )
                axes.plot(pair.ap.mean, y, "o", color=color, markersize=4.5)
            values = list(pair.differences.values())
            name = "one seed" if row == 0 else None
            axes.plot(
                values, [row + 0.36] * len(values), "|", color="0.45", markersize=7, label=name
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(pairs)), [f"{pair.name} – {pair.reference}" for pair in pairs])
        axes.set_ylim(len(pairs) - 0.45, -0.55)
        _plain(axes, xlabel="AP difference, points (95% intervals)")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return _png(figure)


def price(comparison: Comparison) -> bytes:
    """Accuracy against latency: mean AP with its standard deviation over seeds."""
    paint = colors(comparison)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for one in comparison.settings:
            spread = None if np.isnan(one.ap.deviation) else one.ap.deviation
            face = "white" if one.control_of else paint[one.name]
            axes.errorbar(
                one.latency, one.ap.mean, spread, fmt="o", color=paint[one.name], markerfacecolor=face,
                markersize=7, capsize=4, linewidth=1.4, label=f"{one.name}  ({one.params / 1e6:.2f} M)",
            )  # fmt: skip
            axes.annotate(
                one.name, (one.latency, one.ap.mean), (8, 5), textcoords="offset points", fontsize=9
            )
        axes.margins(0.18)
        _plain(
            axes,
            xlabel="Latency of one image, ms (median, end to end)",
            ylabel="AP ± standard deviation",
        )
        axes.legend(
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            title="setting (parameters)",
        )
        return _png(figure)


def curves(comparison: Comparison) -> bytes:
    """AP on the test images and training loss over the epochs: mean and range over seeds."""
    paint = colors(comparison)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        score, loss = figure.subplots(1, 2)
        for one in comparison.settings:
            style = "--" if one.control_of else "-"
            _band(score, one, "map50_95", 100, paint[one.name], style)
            _band(loss, one, "loss", 1, paint[one.name], style)
        _plain(score, xlabel="Epoch", ylabel="AP", title="AP: mean and range over seeds")
        _plain(loss, xlabel="Epoch", ylabel="Loss", title="Training loss (weighted)")
        for axes in (score, loss):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        loss.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return _png(figure)


def _band(axes: Axes, one: Setting, key: str, factor: float, color: str, style: str) -> None:
    epochs = _common_epochs(one.curves, key)
    if not epochs:
        return
    rows = [{int(row["epoch"]): row[key] for row in curve if key in row} for curve in one.curves]
    values = factor * np.array([[row[epoch] for epoch in epochs] for row in rows])
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(
        epochs,
        values.mean(0),
        style,
        color=color,
        marker=marker,
        markersize=3,
        linewidth=1.5,
        label=one.name,
    )
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)


def _common_epochs(rows: Sequence[Sequence[dict[str, float]]], key: str) -> list[int]:
    """The epochs that every seed has a value for."""
    sets = [{int(row["epoch"]) for row in curve if key in row} for curve in rows]
    return sorted(set.intersection(*sets)) if sets else []
