"""The box coder that pretrained heads bring."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from nets import load_model
from nets.io.darknet import write_darknet
from nets.io.darknet_cfg import darknet_cfg
from nets.io.weights import WeightsFile, choose_model_config, read_weights
from nets.yolo.box_coder import DARKNET
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from tests.nets.io.cat_dog_checkpoint import ANCHORS, save_checkpoint
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import Config, ModelConfig


@pytest.fixture
def heads(tmp_path: Path) -> dict[str, WeightsFile]:
    """One weights file with heads for 2 classes per format and origin of the box coder."""
    network = YOLOv4Tiny(2)
    write_darknet(network, tmp_path / "plain.weights")
    write_darknet(network, tmp_path / "described.weights")
    model = {"new_coords": True, "anchors": ANCHORS}
    described = build_model(make_config({"model": model}), 2)
    (tmp_path / "described.cfg").write_text(darknet_cfg(described, (64, 64)))
    torch.save(network.state_dict(), tmp_path / "reference.pth")
    save_checkpoint(tmp_path / "ours.pt")
    paths = [path for path in tmp_path.iterdir() if path.suffix != ".cfg"]
    return {path.stem: read_weights(path) for path in paths}


@pytest.mark.parametrize(
    ("name", "new_coords", "scale_x_y", "anchors"),
    [
        ("plain", False, 1.05, DARKNET[2].anchors),
        ("described", True, 2.0, ANCHORS),
        ("reference", False, 1.0, DARKNET[2].anchors),
        ("ours", True, 2.0, ANCHORS),
    ],
)
def test_heads_that_fit_bring_their_coder(
    name: str,
    new_coords: bool,
    scale_x_y: float,
    anchors: Sequence[Sequence[float]],
    heads: dict[str, WeightsFile],
) -> None:
    model = choose_model_config(ModelConfig(), 2, heads[name])
    coder = build_model(Config(model=model), 2).coder
    assert (coder.new_coords, coder.scale_x_y) == (new_coords, scale_x_y)
    np.testing.assert_allclose(coder.anchors.numpy(), anchors)
    loaded = load_model(heads[name].path, device="cpu").network.coder
    assert torch.equal(coder.anchors, loaded.anchors) and coder.masks == loaded.masks
    assert (coder.new_coords, coder.scale_x_y) == (loaded.new_coords, loaded.scale_x_y)
    # what agrees with the file may be asked for
    assert choose_model_config(model, 2, heads[name]) == model
    same_scale = ModelConfig(scale_x_y=scale_x_y)
    assert choose_model_config(same_scale, 2, heads[name]) == model


@pytest.mark.parametrize(
    ("name", "requested", "keys"),
    [
        ("plain", {"scale_x_y": 2.0}, "model.scale_x_y"),
        ("plain", {"anchors": ANCHORS, "scale_x_y": 1.0}, "model.anchors, model.scale_x_y"),
        ("ours", {"new_coords": False}, "model.new_coords"),
        ("ours", {"anchor_masks": ((3, 4, 5), (1, 2, 3))}, "model.anchor_masks"),
    ],
)
def test_another_coder_than_that_of_heads_that_fit_is_refused(
    name: str, requested: dict[str, object], keys: str, heads: dict[str, WeightsFile]
) -> None:
    with pytest.raises(UserError, match=re.escape(keys)) as caught:
        choose_model_config(ModelConfig(**requested), 2, heads[name])
    assert str(heads[name].path) in str(caught.value) and "\n" not in str(caught.value)


def test_heads_that_do_not_fit_bring_no_coder(heads: dict[str, WeightsFile]) -> None:
    requested = ModelConfig(new_coords=False, scale_x_y=1.3)
    for weights in heads.values():
        assert choose_model_config(requested, 3, weights) is requested
    backbone = WeightsFile(Path("a.pth"), {"backbone.stem1.conv.weight": torch.zeros(32, 3, 3, 3)})
    assert choose_model_config(requested, 2, backbone) is requested


def test_a_cfg_of_other_classes_matters_only_to_heads_that_fit(
    heads: dict[str, WeightsFile],
) -> None:
    """Darknet's own way to fine-tune leaves a cfg for the new classes beside the old weights."""
    weights = heads["described"]
    cfg = weights.path.with_suffix(".cfg")
    cfg.write_text(darknet_cfg(YOLOv4Tiny(3), (64, 64)))
    assert choose_model_config(ModelConfig(), 3, weights) == ModelConfig()
    with pytest.raises(UserError, match="describes 3 classes, its weights have 2"):
        choose_model_config(ModelConfig(), 2, weights)
