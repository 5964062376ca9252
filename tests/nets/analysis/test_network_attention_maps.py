"""The attention maps of a network's blocks."""

import pytest
import torch
from torch import nn

from nets.analysis.attention_maps import attention_maps
from nets.yolo.yolov4_tiny import YOLOv4Tiny

IMAGE = (1, 3, 64, 96)


@pytest.mark.parametrize("init", ["paper", "identity"])
def test_attention_maps_are_the_maps_of_the_blocks_at_their_own_inputs(init):
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
    sites = attention_maps(net, image, point=(70.0, 40.0))
    assert list(sites) == ["feat1", "feat2", "lateral"]
    assert torch.equal(sites["feat1"].maps["channel"], expected["channel"][0])
    assert torch.equal(sites["feat1"].maps["spatial"], expected["spatial"][0])
    assert sites["feat2"].position == (1, 2) and torch.equal(sites["feat2"].maps["query"], row[0])
    assert sites["feat1"].shape == (256, 4, 6) and sites["feat1"].position == (2, 4)
    assert (sites["feat1"].alpha, sites["feat2"].alpha) == (
        (0.0, None) if init == "identity" else (None, None)
    )


@pytest.mark.parametrize("point", [(0.0, 0.0), (95.99, 63.99), (96.0, 64.0)])
def test_points_on_the_border_stay_on_the_map(point):
    net = YOLOv4Tiny(2, sites={"feat2": "pam"}).eval()
    assert attention_maps(net, torch.rand(IMAGE), point)["feat2"].position in {(0, 0), (1, 2)}


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
    change = attention_maps(net, torch.rand(IMAGE))["feat1"].maps["change"]
    expected = torch.zeros(4, 6)
    expected[:, :3] = 0 if init == "identity" else 1
    assert torch.allclose(change, expected, atol=1e-5)
