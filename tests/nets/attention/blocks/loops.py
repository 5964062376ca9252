"""Parts of formulas, written by hand in float64."""

import math

import torch
from torch.nn import functional as F

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
    with torch.no_grad():
        expected = torch.stack([formula(block, image) for image in x])
        assert relative_difference(block(x), expected) < 1e-10


def convolved(layer, x, dilation=1, stride=1):
    """Convolution of (c, h, w), position by position; zero padding that keeps h and w."""
    outputs, group, rows, columns = layer.weight.shape
    wide = F.pad(x, [dilation * (columns // 2)] * 2 + [dilation * (rows // 2)] * 2)
    weight = layer.weight.unflatten(0, (len(x) // group, -1))
    height, width = (-(-side // stride) for side in x.shape[1:])
    y = torch.zeros(outputs, height, width, dtype=x.dtype)
    for h in range(height):
        for w in range(width):
            window = wide[:, h * stride :: dilation, w * stride :: dilation][:, :rows, :columns]
            y[:, h, w] = (weight * window.unflatten(0, (-1, 1, group))).sum((2, 3, 4)).flatten()
    return y if layer.bias is None else y + layer.bias[:, None, None]


def pointwise(layer, x):
    """1x1 convolution of (c, h, w)."""
    return columns_through(layer, x.flatten(1)).unflatten(1, x.shape[1:])


def adaptive_pooled(x, rows, columns):
    """(c, rows, columns): means of cells that reach from a floor to a ceiling."""
    height, width = x.shape[1:]
    y = torch.zeros(len(x), rows, columns, dtype=x.dtype)
    for r in range(rows):
        for c in range(columns):
            top, bottom = r * height // rows, -(-(r + 1) * height // rows)
            left, right = c * width // columns, -(-(c + 1) * width // columns)
            y[:, r, c] = x[:, top:bottom, left:right].mean((1, 2))
    return y


def standardized(values, eps):
    """Values minus their mean, over their deviation, variance divided by their number."""
    mean = values.mean()
    return (values - mean) / math.sqrt(((values - mean) ** 2).mean() + eps)


def mlp(layers, z):
    """Two 1x1 convolutions with a ReLU between them, on a vector."""
    hidden = columns_through(layers[0], z[:, None]).relu()
    return columns_through(layers[2], hidden)[:, 0]


def attend(query, keys, values, scale, bias=None):
    """The weighted sum for one query (d), from lists of keys (d) and values (e)."""
    scores = [scale * (query @ key).item() for key in keys]
    scores = [score + extra for score, extra in zip(scores, bias or [0] * len(keys), strict=True)]
    return sum(weight * value for weight, value in zip(softmax(scores), values, strict=True))


def places_of(x):
    """(row, column) of each position of (c, h, w)."""
    return [(row, column) for row in range(x.shape[1]) for column in range(x.shape[2])]


def maps_of(layer, x, number):
    """A number of maps (c, h, w) that one 1x1 convolution makes."""
    return pointwise(layer, x).chunk(number)


def head_channels(heads):
    """The channels of each head."""
    width = C // heads
    return [slice(head * width, (head + 1) * width) for head in range(heads)]


def vectors_at(maps, places):
    """The vectors of a map at each of the places."""
    return [maps[:, row, column] for row, column in places]
