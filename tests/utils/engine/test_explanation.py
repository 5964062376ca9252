"""Heatmaps: a planted attention shows where it was planted, and mistakes are one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import predict
from nets.analysis.attention_maps import attention_maps
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.images import Letterbox, write_image
from utils.engine import explanation
from utils.engine.explanation import Focus, explain, explain_images, parse_focus
from utils.engine.sources import ImageSource
from utils.visualization.heatmap import HeatPanel, map_to_image

NAMES = ("bolt", "nut")
HEATMAP = ("--mode", "heatmap", "--source", "p.png", "--weights")
PLANTED = {"feat1": "cbam", "feat2": "self_attention", "lateral": "sk"}


def detector(phi: object = "none", score: float = 0.0, **options: object) -> Detector:
    values = {
        "phi": phi,
        "input_size": 64,
        "device": "cpu",
        "precision": "fp32",
        "predict": {"score": score},
        **options,
    }
    config = make_config(values)
    sites = {} if phi == "none" else phi
    assert isinstance(sites, dict)
    network = YOLOv4Tiny(2, sites=sites, init=config.attention.init or "paper")
    return Detector(network, config, NAMES)


@pytest.fixture
def follows_brightness() -> Detector:
    """feat1 holds the brightness of its cell, and the spatial gate of the CBAM there follows it.

    Every convolution before it passes on the mean of its input through its middle tap; the gate
    is sigmoid(4 * mean).
    """
    model = detector({"stem": "cbam"})
    with torch.no_grad():
        for layer in (model.network.backbone.stem1, model.network.backbone.stem2):
            weight = layer.conv.weight
            weight.zero_()
            weight[:, :, 1, 1] = 1 / weight.shape[1]
        block = model.network.attention["stem"]
        block.channelattention.fc2.weight.zero_()  # every channel: sigmoid(0) = 0.5
        block.spatialattention.conv1.weight.zero_()
        block.spatialattention.conv1.weight[0, 0, 3, 3] = 4
    return model


def spy_rows(monkeypatch: pytest.MonkeyPatch) -> list:
    """The scene and rows that are drawn."""
    drawn: list = []

    def sheet(scene, rows, title):
        drawn.append((scene, rows, title))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(explanation, "draw_sheet", sheet)
    return drawn


@pytest.mark.parametrize(
    ("size", "spot"), [((120, 300), (200, 30)), ((320, 100), (60, 250)), ((40, 40), (30, 10))]
)
def test_a_planted_attention_shows_up_where_it_was_planted(
    follows_brightness, monkeypatch, size, spot
):
    image = np.zeros((*size, 3), np.uint8)
    radius = max(size) // 10
    x, y = spot
    image[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = 255
    drawn = spy_rows(monkeypatch)
    explain(follows_brightness, image, Focus(site="stem"))
    scene, rows, _ = drawn[0]
    panel = next(
        panel
        for panel in rows[0].panels
        if isinstance(panel, HeatPanel) and "spatial" in panel.title
    )
    heat = map_to_image(panel.values, scene.letterbox)
    assert heat.shape == size
    peak = np.argwhere(heat > heat.min() + 0.9 * (heat.max() - heat.min())).mean(0)
    lit = np.argwhere(image[..., 0] > 0).mean(0)
    assert np.abs(peak - lit).max() < 0.04 * max(size) + 1
    inside = heat[image[..., 0] > 0].mean()
    assert inside > heat[image[..., 0] == 0].mean() + 0.05


def test_every_kind_of_block_has_its_panel(monkeypatch):
    drawn = spy_rows(monkeypatch)
    model = detector(
        {**PLANTED, "head16": "stn", "upsample": "eca"}, attention={"init": "identity"}
    )
    explained = explain(model, np.full((50, 90, 3), 80, np.uint8), Focus())
    _, rows, title = drawn[-1]
    titles = {row.label.split(":")[0]: [panel.title for panel in row.panels] for row in rows}
    active = "class activation (Grad-CAM)"
    assert (
        list(titles)
        == ["feat1", "feat2", "lateral", "upsample", "head16"]
        == list(explained.sheets)
    )
    assert titles["feat1"] == [active, "channel attention", "spatial attention"]
    assert titles["feat2"] == [active, "attention of the starred point"]
    assert titles["lateral"] == [active, "weights of the branches"]
    assert titles["upsample"] == [active, "channel attention"]
    assert titles["head16"] == [active, "displacement, in cells of the map"]
    assert rows[0].label == "feat1: cbam\n256 x 4 x 4\nalpha 0.000" and "alpha" not in rows[1].label
    assert len(drawn) == 6 and "explained: " in title


def test_without_attention_there_is_class_activation_at_feat1_and_feat2():
    explained = explain(detector(), np.full((50, 90, 3), 80, np.uint8), Focus())
    assert list(explained.sheets) == ["feat1", "feat2"]
    assert explained.overview.shape[0] > explained.sheets["feat1"].shape[0]


@pytest.mark.parametrize("point", [(0.0, 0.0), (89.9, 49.9), (30.0, 25.0)])
def test_the_row_is_that_of_the_chosen_point(monkeypatch, point):
    """40 x 80 letterboxed into 64 x 64: (x, y) -> (0.8 x, 0.8 y + 16)."""
    drawn = spy_rows(monkeypatch)
    model = detector({"feat1": "self_attention"})
    image = np.random.default_rng(0).integers(0, 255, (40, 80, 3)).astype(np.uint8)
    x, y = min(point[0], 79.9), min(point[1], 39.9)
    explain(model, image, Focus(point=(x, y)))
    scene, rows, _ = drawn[-1]
    canvas = (
        torch.from_numpy(Letterbox((40, 80), (64, 64)).apply(image)).permute(2, 0, 1)[None] / 255
    )
    expected = attention_maps(model.network, canvas, (0.8 * x, 0.8 * y + 16))["feat1"]
    assert expected.position == (int((0.8 * y + 16) // 16), int(0.8 * x // 16))
    assert scene.point == (x, y)
    assert np.array_equal(rows[0].panels[1].values, expected.maps["query"].numpy())
    elsewhere = attention_maps(model.network, canvas, (40.0, 63.0))["feat1"].maps["query"].numpy()
    assert not np.array_equal(rows[0].panels[1].values, elsewhere), "or any row would do"


def test_the_point_is_the_middle_of_the_explained_prediction(monkeypatch):
    drawn = spy_rows(monkeypatch)
    model, image = detector({"feat2": "pam"}), np.full((40, 80, 3), 80, np.uint8)
    explained = explain(model, image, Focus())
    box = explained.detections.boxes[0]
    assert drawn[-1][0].point == pytest.approx(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), abs=0.01
    )


def test_a_named_class_is_explained_alone_even_where_it_is_not_detected(monkeypatch):
    drawn = spy_rows(monkeypatch)
    model = detector(score=0.999)
    explain(model, np.full((40, 80, 3), 80, np.uint8), Focus(label=1))
    scene, _, title = drawn[-1]
    assert scene.detections.labels.tolist() == [1] and len(scene.detections.boxes) == 1
    assert "explained: nut" in title


def test_files_and_json(tmp_path, monkeypatch):
    spy_rows(monkeypatch)
    model = detector(PLANTED)
    images = [
        ImageSource(f"{name}.jpg", lambda: np.full((50, 90, 3), 80, np.uint8)) for name in "aba"
    ]
    summary = explain_images(model, images, Focus(), tmp_path / "out", tmp_path / "list.json")
    expected = set()
    for part in ("", "-feat1", "-feat2", "-lateral"):
        expected |= {f"a{part}.png", f"a{part}-2.png", f"b{part}.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert summary.done == 3 and summary.out == tmp_path / "out"
    entries = json.loads((tmp_path / "list.json").read_text())
    assert [entry["image"] for entry in entries] == ["a.jpg", "b.jpg", "a.jpg"]
    assert entries[0]["width"] == 90


def test_attention_is_shown_without_a_detection(monkeypatch, capsys):
    drawn = spy_rows(monkeypatch)
    explain(detector(PLANTED, score=0.999), np.full((40, 80, 3), 80, np.uint8), Focus())
    scene, rows, title = drawn[-1]
    assert [panel.title for panel in rows[0].panels] == ["channel attention", "spatial attention"]
    assert (
        rows[0].label.startswith("feat1: cbam")
        and scene.point == (40, 20)
        and "no detection" in title
    )
    assert "note: image: no detection above 0.999" in capsys.readouterr().err


def test_neither_detection_nor_attention_is_an_error():
    with pytest.raises(
        UserError,
        match=r"no detection above 0.999 \(the best: .*\) and no attention to show; a lower",
    ):
        explain(detector(score=0.999), np.full((40, 80, 3), 80, np.uint8), Focus())


# the command line


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = detector({"feat1": "eca"})
    content = checkpoints.describe(model.network, model.config, NAMES)
    checkpoints.save(tmp_path / "best.pt", content)
    write_image(tmp_path / "p.png", np.full((40, 80, 3), 80, np.uint8))
    return tmp_path / "best.pt"


def test_the_command_line_writes_a_sheet_a_site(weights, call, capsys):
    assert call(predict, *HEATMAP, weights, "--point", "20,30", "--class", "nut") == 0
    assert sorted(path.name for path in Path("runs/predict").iterdir()) == [
        "p-feat1.png",
        "p-feat2.png",
        "p.png",
    ]
    assert "\n1 image, " in capsys.readouterr().out
    assert call(predict, *HEATMAP, weights, "--site", "csp3", "--out", "here") == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["p-csp3.png", "p.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--site", "feat3"], "--site feat3: no such site; did you mean 'feat"),
        (["--point", "80,10"], "--point 80,10: lies outside p.png, which is 80 x 40 pixels"),
        (["--point", "-1,10"], "--point -1,10: lies outside p.png"),
        (["--point", "ten"], "--point ten: expected x,y in pixels of the image"),
        (["--point", "nan,1"], "--point nan,1: expected x,y in pixels of the image"),
        (["--class", "nutt"], "--class nutt: not in the class list; did you mean 'nut'?"),
        (
            ["--out", "one.png"],
            "--out one.png: --mode heatmap writes several images, give a folder",
        ),
        (["--score", "0.999", "--site", "feat2"], "no detection above 0.999"),
        (["--source", "."], "is a folder: use --mode dir to detect on all images in it, or name"),
    ],
)
def test_mistakes_are_one_line(weights, call, capsys, arguments, message):
    assert (
        call(
            predict,
            *HEATMAP,
            weights,
            *(f"{a}={b}" for a, b in zip(arguments[::2], arguments[1::2], strict=True)),
        )
        == 2
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")
    assert not Path("runs").exists()


def test_names_are_checked_against_the_model():
    model = detector()
    assert parse_focus(model, "csp1", "3,4.5", "nut") == Focus("csp1", (3.0, 4.5), 1)
    assert parse_focus(model) == Focus()
