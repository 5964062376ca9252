"""The plots of a report, each in all formats."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from utils.compare.analysis.comparison import Comparison, SettingSummary
from utils.visualization.figures import BESIDE, COLORS, finish, new_figure, to_files

MAX_MARKED_EPOCHS = 30

Plot = dict[str, bytes]  # format -> file


def names(comparison: Comparison) -> list[str]:
    """The names of all plots that a comparison has."""
    shown = {
        "differences": bool(comparison.pairs),
        "cost": not any(math.isnan(setting.latency) for setting in comparison.settings),
        "curves": comparison.plan.foreign is None,
    }
    return [name for name, is_shown in shown.items() if is_shown]


def draw_all(comparison: Comparison) -> dict[str, Plot]:
    """Name of a plot -> plot."""
    draw = {"cost": cost, "curves": curves, "differences": differences}
    return {name: draw[name](comparison) for name in names(comparison)}


def setting_colors(comparison: Comparison) -> dict[str, str]:
    """Setting -> color; a control has the color of the setting it belongs to."""
    names = [comparison.plan.baseline]
    for setting in comparison.settings:
        if not setting.control_of and setting.name not in names:
            names.append(setting.name)
    own = {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)}
    colors = {}
    for setting in comparison.settings:
        colors[setting.name] = own.get(setting.control_of or setting.name, COLORS[0])
    return colors


def differences(comparison: Comparison) -> Plot:
    """The mean AP difference of every pair with its three intervals; ticks are seeds."""
    pairs = comparison.pairs
    with new_figure(8.6, 1.2 + 0.75 * len(pairs)) as figure:
        axes = figure.add_subplot()
        for row, pair in enumerate(pairs):
            intervals = (
                ("over seeds", "#0072B2", row - 0.2, pair.ap.interval),
                ("over test images", "#D55E00", row, pair.images),
                ("over both", "#444444", row + 0.2, pair.combined),
            )
            for label, color, y, ends in intervals:
                line = axes.plot(ends, (y, y), color=color, linewidth=2.4, solid_capstyle="butt")
                axes.plot(pair.ap.mean, y, "o", color=color, markersize=4.5)
                if row == 0:
                    line[0].set_label(label)
            values = list(pair.differences.values())
            seeds = axes.plot(values, [row + 0.36] * len(values), "|", color="0.45", markersize=7)
            if row == 0:
                seeds[0].set_label("one seed")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(pairs)), [f"{pair.name} – {pair.reference}" for pair in pairs])
        axes.set_ylim(len(pairs) - 0.45, -0.55)
        finish(axes, xlabel="AP difference, points (95% intervals)")
        axes.legend(**BESIDE)
        return to_files(figure)


def cost(comparison: Comparison) -> Plot:
    """Accuracy against latency: mean AP with its standard deviation over seeds."""
    colors = setting_colors(comparison)
    with new_figure(8.6, 3.6) as figure:
        axes = figure.add_subplot()
        for setting in comparison.settings:
            color = colors[setting.name]
            point = (setting.latency, setting.ap.mean)
            axes.errorbar(
                *point,
                None if np.isnan(setting.ap.deviation) else setting.ap.deviation,
                fmt="o",
                color=color,
                markerfacecolor="white" if setting.control_of else color,
                markersize=7,
                capsize=4,
                linewidth=1.4,
                label=_with_size(setting),
            )
            axes.annotate(setting.name, point, (8, 5), textcoords="offset points", fontsize=9)
        axes.margins(0.18)
        finish(
            axes,
            xlabel="Latency of one image, ms (median, end to end)",
            ylabel="AP ± standard deviation",
        )
        axes.legend(title="setting (parameters)", **BESIDE)
        return to_files(figure)


def _with_size(setting: SettingSummary) -> str:
    if setting.params is None:
        return setting.name
    return f"{setting.name}  ({setting.params / 1e6:.2f} M)"


def curves(comparison: Comparison) -> Plot:
    """AP on the test images and training loss over the epochs: mean and range over seeds."""
    colors = setting_colors(comparison)
    with new_figure(10, 3.8) as figure:
        ap_axes, loss_axes = figure.subplots(1, 2)
        for setting in comparison.settings:
            color = colors[setting.name]
            _plot_band(ap_axes, setting, "map50_95", 100, color)
            _plot_band(loss_axes, setting, "loss", 1, color)
        finish(ap_axes, xlabel="Epoch", ylabel="AP", title="AP: mean and range over seeds")
        finish(loss_axes, xlabel="Epoch", ylabel="Loss", title="Training loss (weighted)")
        for axes in (ap_axes, loss_axes):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        loss_axes.legend(**BESIDE)
        return to_files(figure)


def _plot_band(axes: Axes, setting: SettingSummary, column: str, factor: float, color: str) -> None:
    """Plot a column of `results.csv`, times `factor`, at the epochs where every seed has it."""
    by_epoch = [_values_by_epoch(curve, column) for curve in setting.curves]
    epochs = sorted(set.intersection(*(set(values) for values in by_epoch)))
    if not epochs:
        return
    values = factor * np.array([[of_seed[epoch] for epoch in epochs] for of_seed in by_epoch])
    axes.plot(
        epochs,
        values.mean(0),
        "--" if setting.control_of else "-",
        color=color,
        marker="o" if len(epochs) <= MAX_MARKED_EPOCHS else "",
        markersize=3,
        linewidth=1.5,
        label=setting.name,
    )
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)


def _values_by_epoch(curve: Sequence[dict[str, float]], column: str) -> dict[int, float]:
    return {int(row["epoch"]): row[column] for row in curve if column in row}
