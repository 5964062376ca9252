"""A training that starts from weights: blocks that are new, and the box coder of heads that fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nets import load_model
from nets.io.darknet import write_darknet
from nets.io.weights import read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from tests.utils.engine.run_files import weights
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.datasets import open_datasets
from utils.engine.experiment import Result, new_detector, train
from utils.engine.runs import BEST, LAST


def test_pretrained_weights_are_the_start(trained: Result, tiny: Callable[..., Config], capsys):
    result = train(
        tiny(
            f"weights={trained.run / BEST}", "train.epochs=1", "train.lr=1e-12", "train.ema_decay=0"
        )
    )
    assert "(100%)" in capsys.readouterr().out
    first, second = weights(trained.run / BEST), weights(result.run / LAST)
    same = [name for name in first if name.endswith("conv.weight")]
    assert same and all(torch.allclose(first[name], second[name], atol=1e-6) for name in same)


def test_new_attention_does_not_change_pretrained_weights(
    trained: Result, tiny: Callable[..., Config]
):
    plain = load_model(trained.run / BEST, precision="fp32", device="cpu")
    config = tiny(f"weights={trained.run / BEST}", "phi=se")
    dataset = open_datasets(config).train
    detector = new_detector(config, dataset, read_weights(trained.run / BEST))
    assert detector.config.attention.init == "identity"
    images = torch.rand(2, 3, 64, 64)
    for ours, expected in zip(
        detector.network.eval()(images), plain.network.eval()(images), strict=True
    ):
        assert torch.equal(ours, expected)
    asked = tiny(f"weights={trained.run / BEST}", "phi=se", "attention.init=paper")
    made = new_detector(asked, dataset, read_weights(trained.run / BEST))
    assert made.config.attention.init == "paper"


def test_new_blocks_that_erase_pretrained_features_are_named(
    trained: Result, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
):
    dataset = open_datasets(tiny()).train
    warning = (
        "warning: new blocks that erase the pretrained features (attention.init=identity keeps "
        "them): attention.feat1, attention.head16\n"
    )
    phi = "phi={feat1: lka, feat2: se, upsample: gct, head16: shuffle}"
    for init, warned in (("paper", True), ("identity", False)):
        config = tiny(f"weights={trained.run / BEST}", phi, f"attention.init={init}")
        new_detector(config, dataset, read_weights(trained.run / BEST))
        out = capsys.readouterr().out
        assert (warning in out) == warned
        assert (
            "(attention.init=identity keeps them): attention.feat1, attention.head16" in out
        ) == warned


def test_attention_of_the_weights_file_starts_as_it_was_trained(tiny: Callable[..., Config]):
    first = train(tiny("phi=se", "train.epochs=1")).run / BEST
    config = tiny(f"weights={first}", "phi=se")
    detector = new_detector(config, open_datasets(config).train, read_weights(first))
    assert detector.config.attention.init == "paper"
    before, after = weights(first), detector.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def darknet_weights(tmp_path: Path) -> Path:
    """A Darknet file for the six classes of the embedded data, with heads that move the boxes."""
    network = YOLOv4Tiny(6)
    for predict in (network.predict32, network.predict16):
        torch.nn.init.normal_(predict.weight, std=0.3)
    path = tmp_path / "six.weights"
    write_darknet(network, path)
    return path


def test_heads_that_fit_keep_their_box_coder(
    darknet_weights: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
):
    """The default configuration decodes another way than Darknet: the file's way counts."""
    config = tiny(f"weights={darknet_weights}", "train.epochs=1")
    dataset = open_datasets(config).train
    capsys.readouterr()
    detector = new_detector(config, dataset, read_weights(darknet_weights))
    output = capsys.readouterr().out
    assert "model.new_coords=false" in output and str(darknet_weights) in output
    assert len(output.splitlines()) == 2, "what is taken from the file, and what matched"
    expected = load_model(
        darknet_weights, device="cpu", precision="fp32", input_size=config.input_size
    )
    canvases = torch.from_numpy(dataset.canvases(range(4)))
    boxes, scores = detector.backend(canvases)
    expected_boxes, expected_scores = expected.backend(canvases)
    torch.testing.assert_close(boxes, expected_boxes)
    torch.testing.assert_close(scores, expected_scores)

    run = train(config).run
    trained_detector = load_model(run)
    coder, expected_coder = trained_detector.network.coder, expected.network.coder
    assert (coder.new_coords, coder.scale_x_y) == (False, expected_coder.scale_x_y)
    assert coder.masks == expected_coder.masks
    assert torch.equal(coder.anchors, expected_coder.anchors)
    assert load_config(run / "config.yaml") == config, "what was asked for, to be repeated"


def test_another_box_coder_than_that_of_heads_that_fit_is_refused(
    darknet_weights: Path, tiny: Callable[..., Config]
):
    config = tiny(f"weights={darknet_weights}", "model.scale_x_y=1.5")
    with pytest.raises(UserError, match=r"six\.weights.*model\.scale_x_y") as caught:
        train(config)
    assert "\n" not in str(caught.value) and not Path("runs").exists()


def test_heads_for_other_classes_leave_the_box_coder_alone(
    tmp_path: Path, tiny: Callable[..., Config]
):
    write_darknet(YOLOv4Tiny(5), tmp_path / "five.weights")
    config = tiny()
    dataset = open_datasets(config).train
    detector = new_detector(config, dataset, read_weights(tmp_path / "five.weights"))
    assert detector.config == config and detector.network.coder.new_coords
    plain = new_detector(config, dataset)
    assert torch.equal(detector.network.coder.anchors, plain.network.coder.anchors)
