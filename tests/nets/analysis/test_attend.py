"""What a network attends to: the maps of its blocks, and class activation."""

import pytest
import torch
from torch import nn

from nets.analysis.attend import activation, attended, every_site
from nets.yolo.box_coder import BoxCoder
from nets.yolo.yolov4_tiny import DARKNET_ANCHORS, DARKNET_MASKS, SITES, YOLOv4Tiny

IMAGE = (1, 3, 64, 96)


class Bright(nn.Module):
    """Two heads that see brightness alone: red speaks for class 0, green for class 1, blue against both.

    feat1 holds the mean red, green and blue of every 16 x 16 cell; the stride 32 head sees feat2, which is gray.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict()
        self.coder = BoxCoder(DARKNET_ANCHORS, DARKNET_MASKS)
        self.scale = nn.Parameter(torch.tensor(8.0))

    def _attend(self, site, x):
        return self.attention[site](x) if site in self.attention else x

    def forward(self, images):
        feat1 = self._attend("feat1", nn.functional.avg_pool2d(images, 16))
        feat2 = self._attend("feat2", nn.functional.avg_pool2d(images.mean(1, keepdim=True), 32))
        red, green, blue = (self.scale * feat1).unbind(1)
        empty = torch.zeros_like(red)
        one = torch.stack(
            [empty, empty, empty, empty, red + green - blue - 4, red - 4, green - 4], 1
        )
        coarse = torch.cat([feat2 * 0] * 4 + [feat2 - 9] * 3, 1)
        return [coarse.repeat(1, 3, 1, 1), one.repeat(1, 3, 1, 1)]


@pytest.fixture
def picture() -> torch.Tensor:
    """A red object (cell row 1, column 4), a weaker green one (row 3, column 1) and a bright blue distractor."""
    images = torch.full(IMAGE, 0.05)
    images[0, 0, 16:32, 64:80] = 0.9
    images[0, 1, 48:64, 16:32] = 0.8
    images[0, 2, 0:16, 0:16] = 1.0
    return images


def test_class_activation_peaks_at_the_object_of_the_best_prediction(picture):
    found = activation(Bright(), picture, ["feat1"])
    assert found.label == 0
    assert divmod(int(found.heat["feat1"].argmax()), 6) == (1, 4)
    assert found.heat["feat1"][0, 0] == 0, "what speaks against the class must not light up"
    assert found.box[0] < 72 < found.box[2] and found.box[1] < 24 < found.box[3]


def test_a_named_class_has_its_own_activation(picture):
    found = activation(Bright(), picture, ["feat1"], label=1)
    assert found.label == 1 and divmod(int(found.heat["feat1"].argmax()), 6) == (3, 1)
    with torch.no_grad():
        scores = Bright().coder(Bright()(picture))[1][0]
    assert found.score == pytest.approx(scores[:, 1].max().item(), rel=1e-5)


def test_class_activation_is_grad_cams_formula(picture):
    """Against the definition on the score itself: the logarithm must only scale it."""
    net = Bright()
    features = nn.functional.avg_pool2d(picture, 16).requires_grad_()
    red, green, blue = (8 * features).unbind(1)
    score = ((red + green - blue - 4).sigmoid() * (red - 4).sigmoid())[0, 1, 4]
    (gradient,) = torch.autograd.grad(score, features)
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu()[0]
    got = activation(net, picture, ["feat1"]).heat["feat1"]
    assert torch.allclose(got / got.max(), expected / expected.max(), atol=1e-5)


def test_a_site_that_the_prediction_does_not_use_has_no_activation(picture):
    found = activation(Bright(), picture, ["feat1", "feat2"])
    assert found.heat["feat1"] is not None and found.heat["feat2"] is None


def test_a_confident_prediction_still_has_an_activation(picture):
    net = Bright()
    net.scale.data.fill_(30.0)  # the score is exactly 1 in float32: a sigmoid has no gradient there
    found = activation(net, picture, ["feat1"])
    assert found.score == 1.0 and found.heat["feat1"].max() > 0


@pytest.mark.parametrize("site", list(SITES))
def test_every_site_of_the_network_can_be_explained(site):
    net = YOLOv4Tiny(2).eval().requires_grad_(False)
    image = torch.rand(IMAGE)
    shape = {}
    with every_site(net) as sites:
        sites[site].register_forward_hook(lambda _, args, y: shape.update({site: y.shape[2:]}))
        net(image)
    heads = [activation(net, image, [site], label) for label in (0, 1)]
    assert not len(net.attention) and not any(p.grad is not None for p in net.parameters())
    one_head_only = site in ("feat1", "upsample", "head32", "head16")
    for found in heads:
        assert found.heat[site] is not None or one_head_only
        assert found.heat[site] is None or found.heat[site].shape == shape[site]


def test_class_activation_works_with_attention_and_leaves_the_network_alone():
    net = YOLOv4Tiny(2, sites={"feat1": "cbam", "head16": "eca"}).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = activation(net, torch.rand(IMAGE), ["stage3", "feat1"])
    assert found.heat["stage3"].shape == (4, 6)
    assert list(net.attention) == ["feat1", "head16"]
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("init", ["paper", "identity"])
def test_attended_gives_the_maps_of_the_blocks_at_their_own_inputs(init):
    net = YOLOv4Tiny(
        2, sites={"feat1": "cbam", "feat2": "self_attention", "lateral": "sk"}, init=init
    ).eval()
    image, inputs = torch.rand(IMAGE), {}
    for site, block in net.attention.items():
        block.register_forward_hook(lambda _, args, y, site=site: inputs.update({site: args[0]}))
    with torch.no_grad():
        net(image)
        expected = net.attention["feat1"].attention(inputs["feat1"])
        row = net.attention["feat2"].attention(inputs["feat2"], (1, 2))["query"]
    seen = attended(net, image, point=(70.0, 40.0))
    assert list(seen) == ["feat1", "feat2", "lateral"]
    assert torch.equal(seen["feat1"].maps["channel"], expected["channel"][0])
    assert torch.equal(seen["feat1"].maps["spatial"], expected["spatial"][0])
    assert seen["feat2"].point == (1, 2) and torch.equal(seen["feat2"].maps["query"], row[0])
    assert seen["feat1"].shape == (256, 4, 6) and seen["feat1"].point == (2, 4)
    assert (seen["feat1"].alpha, seen["feat2"].alpha) == (
        (0.0, None) if init == "identity" else (None, None)
    )


@pytest.mark.parametrize("point", [(0.0, 0.0), (95.99, 63.99), (96.0, 64.0)])
def test_points_on_the_border_stay_on_the_map(point):
    net = YOLOv4Tiny(2, sites={"feat2": "pam"}).eval()
    assert attended(net, torch.rand(IMAGE), point)["feat2"].point in {(0, 0), (1, 2)}


class Brighter(nn.Module):
    """A user's block that has no method `attention`: doubles the left half."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x):
        y = x.clone()
        y[..., : x.shape[3] // 2] *= 2
        return y


@pytest.mark.parametrize("init", ["paper", "identity"])
def test_a_block_that_shows_nothing_is_shown_by_what_it_changes(init):
    net = YOLOv4Tiny(2, sites={"feat1": f"{__name__}:Brighter"}, init=init).eval()
    change = attended(net, torch.rand(IMAGE))["feat1"].maps["change"]
    expected = torch.zeros(4, 6)
    expected[:, :3] = 0 if init == "identity" else 1
    assert torch.allclose(change, expected, atol=1e-5)
