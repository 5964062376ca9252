"""Parts of formulas, written by hand in float64."""

import math

import torch

from nets import attention
from nets.attention.conformance import open_gates, relative_difference

C, H, W = 8, 3, 4
N = H * W


def opened(name, channels=C, **options):
    return open_gates(attention.build({"name": name, **options}, channels)).double().eval()


def features(channels=C, height=H, width=W):
    return torch.randn(2, channels, height, width, dtype=torch.float64)


def columns_through(layer, features):
    """1x1 convolution or linear map of (c, n) columns."""
    weight = layer.weight.flatten(1)
    return weight @ features + (0 if layer.bias is None else layer.bias[:, None])


def normalized(layer, x):
    """Batch norm of (c, ...) in evaluation."""
    shape = (-1, *[1] * (x.ndim - 1))
    scale = layer.weight / (layer.running_var + layer.eps).sqrt()
    return x * scale.view(shape) + (layer.bias - layer.running_mean * scale).view(shape)


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def assert_equal(block, formula, x):
    expected = torch.stack([formula(block, image) for image in x])
    with torch.no_grad():
        assert relative_difference(block(x), expected.detach()) < 1e-10
