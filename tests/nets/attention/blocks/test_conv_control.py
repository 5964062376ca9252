"""The fair control spends as many parameters as it is given on plain convolution."""

import pytest
import torch
from torch.nn import functional as F

from nets import attention
from nets.attention.blocks.conv_control import hidden_width, partial_width


def parameter_count(channels: int, params: int) -> int:
    block = attention.build({"name": "conv_control", "params": params}, channels)
    return sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize("channels", [64, 128, 512])
def test_no_other_width_is_nearer(channels):
    least = 9 + 4 * channels + 4  # a hidden width of one
    for params in (least, 2 * least, 9_000, 50_000, 700_000):
        possible = [9 * h * h + (2 * channels + 4) * h + 2 * channels for h in range(1, 600)]
        assert abs(parameter_count(channels, params) - params) == min(
            abs(count - params) for count in possible
        )
    for params in (1, 5, 60, least - 1):
        possible = [9 * m * m for m in range(1, channels + 1)]
        assert abs(parameter_count(channels, params) - params) == min(
            abs(count - params) for count in possible
        )


def test_the_bottleneck_is_a_residual():
    block = attention.build({"name": "conv_control", "params": 2_000}, 64).eval()
    x = torch.randn(2, 64, 5, 7)
    hidden = hidden_width(64, 2_000)
    assert [tuple(p.shape) for p in block.body.parameters() if p.ndim == 4] == [
        (hidden, 64, 1, 1), (hidden, hidden, 3, 3), (64, hidden, 1, 1),
    ]  # fmt: skip
    torch.nn.init.zeros_(block.body[-1].weight)
    assert torch.equal(block(x), x)


def test_a_small_budget_convolves_the_first_channels():
    block, x = (
        attention.build({"name": "conv_control", "params": 200}, 64),
        torch.randn(2, 64, 5, 7),
    )
    width = partial_width(64, 200)
    y = block(x)
    assert width == 5 and torch.equal(y[:, width:], x[:, width:])
    expected = x[:, :width] + F.conv2d(x[:, :width], block.body.weight, padding=1)
    assert torch.allclose(y[:, :width], expected, atol=1e-6)


def test_its_map_is_the_size_of_its_change():
    block, x = attention.build("conv_control", 64).eval(), torch.randn(2, 64, 5, 7)
    assert torch.allclose(block.attention(x)["spatial"], (block(x) - x).abs().mean(1), atol=1e-6)
