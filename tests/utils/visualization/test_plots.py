"""Images are written for every kind of result, with what they must show."""

import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from nets.inference.detections import Detections
from utils.core.images import read_image
from utils.data.sample import Sample
from utils.metrics import Metrics, evaluate
from utils.visualization import figures, plots


def metrics(classes: int, names: list[str] | None = None) -> Metrics:
    """One image per class; later classes have more wrong detections, the last is never detected."""
    names = names or [f"class {k}" for k in range(classes)]
    box = np.array([[10, 10, 90, 90]], np.float32)
    samples = [
        Sample(Path(f"{k}.jpg"), 100, 100, box, np.array([k]), *np.zeros((2, 1), bool))
        for k in range(classes)
    ]
    detections = []
    for k in range(classes):
        boxes = np.concatenate(
            [np.repeat([[0, 0, 9, 9]], k, axis=0), box if k < classes - 1 else box[:0]]
        )
        scores = np.linspace(0.9, 0.3, len(boxes)).astype(np.float32)
        detections.append(
            Detections(
                boxes.astype(np.float32), scores, np.full(len(boxes), k), tuple(names), 100, 100
            )
        )
    return evaluate(samples, detections, names)


@pytest.fixture
def saved(monkeypatch) -> list[Figure]:
    """The figures that are written, for a look at their parts."""
    figures: list[Figure] = []
    original = Figure.savefig

    def savefig(self: Figure, *args, **options) -> None:
        figures.append(self)
        original(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_names_that_the_font_lacks_take_another_one(saved, tmp_path, monkeypatch):
    other = str(Path(matplotlib.get_data_path()) / "fonts/ttf/STIXGeneral.ttf")
    monkeypatch.setattr(figures, "find_font", lambda text: other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also of glyphs that this font lacks
        plots.plot_pr_curves(metrics(2, ["螺栓", "nut"]), tmp_path / "pr.png")
    legend = saved[0].axes[0].get_legend().get_texts()
    families = {text.get_text()[-2:]: text.get_fontfamily() for text in legend}
    assert families["螺栓"] == ["DejaVu Sans", "STIXGeneral"] and families["ut"] != families["螺栓"]


def texts(items) -> list[str]:
    return [item.get_text() for item in items]


def test_pr_curves_name_every_class(saved, tmp_path):
    result = metrics(3, ["_disc", "$a_{$", "never found"])
    plots.plot_pr_curves(result, tmp_path / "new" / "pr.png")
    axes = saved[0].axes[0]
    assert texts(axes.get_legend().get_texts()) == [
        "0.500  mean",
        "1.000  _disc",
        "0.500  $a_{$",
        "0.000  never found",
    ]
    assert read_image(tmp_path / "new" / "pr.png").std() > 10
    mean = axes.get_lines()[-1].get_ydata()
    np.testing.assert_allclose(
        mean, np.mean([item.precision for item in result.per_class.values()], axis=0)
    )


def test_the_curve_of_a_single_class_is_not_hidden_by_a_mean(saved, tmp_path):
    plots.plot_pr_curves(metrics(1), tmp_path / "pr.png")
    axes = saved[0].axes[0]
    assert len(axes.get_lines()) == 1
    (label,) = texts(axes.get_legend().get_texts())
    assert label.endswith("  class 0")


def test_pr_curves_of_many_classes_name_the_extremes(saved, tmp_path):
    plots.plot_pr_curves(metrics(80), tmp_path / "pr.png")
    axes = saved[0].axes[0]
    labels = texts(axes.get_legend().get_texts())
    assert len(axes.get_lines()) == 81
    assert len(labels) == 18
    assert (
        labels[1] == "1.000  class 0"
        and labels[9] == "…  64 others"
        and labels[-1] == "0.000  class 79"
    )
    saved[0].draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= 0 and legend.x1 <= saved[0].bbox.x1  # all of it is on the image


@pytest.mark.parametrize("classes", [3, 80, 250])
def test_confusion_ticks_stay_readable(classes, saved, tmp_path):
    plots.plot_confusion_matrix(metrics(classes), tmp_path / "confusion.png")
    figure, axes = saved[0], saved[0].axes[0]
    names = texts(axes.get_yticklabels())
    assert names[0] == "class 0" and names[-1] == "background"
    assert len(names) == classes + 1 if classes <= 80 else len(names) <= 101
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()][:-1]
    gaps = [upper.y0 - lower.y1 for upper, lower in pairwise(boxes)]
    assert all(gap > -1 for gap in gaps)
    assert axes.yaxis.label.get_window_extent().x0 >= 0


def test_confusion_numbers_are_the_counts(saved, tmp_path):
    result = metrics(3)
    plots.plot_confusion_matrix(result, tmp_path / "confusion.png")
    shown = {
        tuple(int(v) for v in text.get_position()[::-1]): int(text.get_text())
        for text in saved[0].axes[0].texts
    }
    assert shown == {
        (int(r), int(c)): result.confusion[r, c] for r, c in np.argwhere(result.confusion)
    }


def test_false_detections_are_a_share_of_the_detections(saved, tmp_path):
    result = metrics(3)
    result.confusion[:] = [[6, 0, 0, 1], [0, 3, 0, 0], [0, 0, 0, 2], [2, 1, 0, 0]]
    plots.plot_confusion_matrix(result, tmp_path / "confusion.png")
    shares = np.asarray(saved[0].axes[0].get_images()[0].get_array())
    np.testing.assert_allclose(shares[-1], [2 / 8, 1 / 4, 0, 0])
    np.testing.assert_allclose(shares[0], [6 / 7, 0, 0, 1 / 7])


def test_plots_of_nothing(tmp_path):
    nothing = evaluate([], [], ["a", "b"])
    plots.plot_pr_curves(nothing, tmp_path / "pr.png")
    plots.plot_confusion_matrix(nothing, tmp_path / "confusion.png")
    plots.plot_training_curves([], tmp_path / "training.png")
    assert all(
        read_image(tmp_path / f"{name}.png").size for name in ("pr", "confusion", "training")
    )


def test_training_curves_skip_epochs_without_metrics(saved, tmp_path):
    rows = [
        {"epoch": e, "lr": 0.01 / e, "loss": 3 / e, "box": 1 / e, "objectness": 1 / e, "cls": 1 / e}
        for e in range(1, 9)
    ]
    rows[3] |= {"map50": 0.5, "map50_95": 0.3}
    rows[5] |= {"map50": float("nan"), "map50_95": float("nan")}
    rows[7] |= {"map50": 0.6, "map50_95": 0.2}
    plots.plot_training_curves(rows, tmp_path / "training.png")
    loss, precision, rate = saved[0].axes
    assert [len(line.get_xdata()) for line in loss.get_lines()] == [8] * 4
    assert texts(loss.get_legend().get_texts()) == ["total", "box", "objectness", "class"]
    assert [line.get_xdata().tolist() for line in precision.get_lines()] == [[4, 8], [4, 8]]
    assert "0.300 in epoch 4" in precision.get_title()
    assert len(rate.get_lines()) == 1
