"""Grad-CAM against its formula, on a network whose answer is known, and at every site."""

import pytest
import torch
from torch import nn

from nets.analysis.gradcam import grad_cam
from nets.analysis.sites import observe_sites
from nets.yolo.box_coder import DARKNET, BoxCoder
from nets.yolo.yolov4_tiny import SITES_BY_HEADS, YOLOv4Tiny, build_model
from utils.core.config import make_config

IMAGE = (1, 3, 64, 96)


class Bright(nn.Module):
    """Two heads that see brightness: red is class 0, green class 1, blue counts against both.

    feat1 holds the mean red, green and blue of every 16 x 16 cell; the stride 32 head sees feat2,
    which is gray.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict()
        self.coder = BoxCoder(DARKNET[2].anchors, DARKNET[2].masks)
        self.scale = nn.Parameter(torch.tensor(8.0))

    def apply_attention(self, site, x):
        return self.attention[site](x) if site in self.attention else x

    def forward(self, images):
        feat1 = self.apply_attention("feat1", nn.functional.avg_pool2d(images, 16))
        feat2 = self.apply_attention(
            "feat2", nn.functional.avg_pool2d(images.mean(1, keepdim=True), 32)
        )
        red, green, blue = (self.scale * feat1).unbind(1)
        empty = torch.zeros_like(red)
        fine = torch.stack([empty] * 4 + [red + green - blue - 4, red - 4, green - 4], 1)
        coarse = torch.cat([feat2 * 0] * 4 + [feat2 - 9] * 3, 1)
        return [coarse.repeat(1, 3, 1, 1), fine.repeat(1, 3, 1, 1)]


@pytest.fixture
def image() -> torch.Tensor:
    """A red object (row 1, column 4), a weaker green one (3, 1), a bright blue distractor."""
    images = torch.full(IMAGE, 0.05)
    images[0, 0, 16:32, 64:80] = 0.9
    images[0, 1, 48:64, 16:32] = 0.8
    images[0, 2, 0:16, 0:16] = 1.0
    return images


def test_grad_cam_peaks_at_the_object_of_the_best_prediction(image):
    cam = grad_cam(Bright(), image, ["feat1"])
    assert cam.label == 0
    assert divmod(int(cam.heatmaps["feat1"].argmax()), 6) == (1, 4)
    assert cam.heatmaps["feat1"][0, 0] == 0, "evidence against the class must not light up"
    assert cam.box[0] < 72 < cam.box[2] and cam.box[1] < 24 < cam.box[3]


def test_a_given_class_has_its_own_heatmap(image):
    cam = grad_cam(Bright(), image, ["feat1"], label=1)
    assert cam.label == 1 and divmod(int(cam.heatmaps["feat1"].argmax()), 6) == (3, 1)
    with torch.no_grad():
        scores = Bright().coder(Bright()(image))[1][0]
    assert cam.score == pytest.approx(scores[:, 1].max().item(), rel=1e-5)


def test_grad_cam_equals_its_formula(image):
    """Against the definition on the score itself: the logarithm must only scale it."""
    net = Bright()
    features = nn.functional.avg_pool2d(image, 16).requires_grad_()
    red, green, blue = (8 * features).unbind(1)
    score = ((red + green - blue - 4).sigmoid() * (red - 4).sigmoid())[0, 1, 4]
    (gradient,) = torch.autograd.grad(score, features)
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu()[0]
    heatmap = grad_cam(net, image, ["feat1"]).heatmaps["feat1"]
    assert torch.allclose(heatmap / heatmap.max(), expected / expected.max(), atol=1e-5)


def test_a_site_that_the_prediction_does_not_use_has_no_heatmap(image):
    cam = grad_cam(Bright(), image, ["feat1", "feat2"])
    assert cam.heatmaps["feat1"] is not None and cam.heatmaps["feat2"] is None
    assert cam.stride == 16


def test_a_confident_prediction_still_has_a_heatmap(image):
    net = Bright()
    net.scale.data.fill_(30.0)  # the score is exactly 1 in float32: a sigmoid has no gradient there
    cam = grad_cam(net, image, ["feat1"])
    assert cam.score == 1.0 and cam.heatmaps["feat1"].max() > 0


# Site -> strides of the heads that it feeds. Others feed all: feat0 and feat1 are also maps inside
# the backbone.
FED = {
    "upsample": [16, 8],
    "head16": [16, 8],
    "head32": [32],
    "upsample8": [8],
    "head8": [8],
}


@pytest.mark.parametrize(
    ("heads", "site"), [(heads, site) for heads, sites in SITES_BY_HEADS.items() for site in sites]
)
def test_every_site_of_the_network_can_be_explained(heads, site):
    net = build_model(make_config({"model": {"heads": heads}}), 2).eval().requires_grad_(False)
    image = torch.rand(IMAGE)
    shape = {}
    with observe_sites(net, lambda name, x, y: shape.update({name: y.shape[2:]})):
        net(image)
    cams = [grad_cam(net, image, [site], label) for label in (0, 1)]
    assert "apply_attention" not in vars(net) and not any(
        p.grad is not None for p in net.parameters()
    )
    for cam in cams:
        assert (cam.heatmaps[site] is not None) == (cam.stride in FED.get(site, [32, 16, 8]))
        assert cam.heatmaps[site] is None or cam.heatmaps[site].shape == shape[site]


def test_grad_cam_works_with_attention_and_leaves_the_network_alone():
    net = YOLOv4Tiny(2, sites={"feat1": "cbam", "head16": "eca"}).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cam = grad_cam(net, torch.rand(IMAGE), ["stage3", "feat1"])
    assert cam.heatmaps["stage3"].shape == (4, 6)
    assert list(net.attention) == ["feat1", "head16"]
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
