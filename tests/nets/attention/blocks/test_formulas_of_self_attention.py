"""Self-attention blocks against their formulas, as loops over queries and keys in float64."""

import math

import pytest
import torch
from loops import C, assert_equal, columns_through, features, normalized, opened, softmax
from torch.nn import functional as F


def _attend(query, keys, values, scale, bias=None):
    """The weighted sum for one query (d), from lists of keys (d) and values (e)."""
    scores = [scale * (query @ key).item() for key in keys]
    scores = [score + extra for score, extra in zip(scores, bias or [0] * len(keys), strict=True)]
    return sum(weight * value for weight, value in zip(softmax(scores), values, strict=True))


def _places(x):
    return [(row, column) for row in range(x.shape[1]) for column in range(x.shape[2])]


def _head(maps, head, heads):
    """The channels of one head of each map (C, H, W)."""
    return [part.chunk(heads)[head] for part in maps]


def _maps(layer, x, number):
    return columns_through(layer, x.flatten(1)).view(-1, *x.shape[1:]).chunk(number)


def _depthwise(layer, x):
    """A convolution with one kernel per channel and zero padding, by shifting."""
    size = layer.kernel_size[0]
    padded = F.pad(x, [size // 2] * 4)
    out = torch.zeros_like(x) if layer.bias is None else layer.bias[:, None, None].expand_as(x)
    for dy in range(size):
        for dx in range(size):
            shifted = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
            out = out + layer.weight[:, :, dy, dx][:, :, None] * shifted
    return out


def _conv_norm(layers, x):
    return normalized(layers[1], columns_through(layers[0], x.flatten(1))).view(-1, *x.shape[1:])


@pytest.mark.parametrize(("name", "options"), [("area", {"area": 4}), ("psa_yolo", {"ratio": 0.5})])
def test_convolutional_attention(name, options):
    heads, width = 2, C // 2
    key_width = width if name == "area" else width // 2

    def formula(block, x):
        places = _places(x)
        run = math.ceil(len(places) / options.get("area", 1))
        packed = _conv_norm(block.qkv, x)
        joined, values = torch.zeros_like(x), torch.zeros_like(x)
        for head in range(heads):
            query, key, value = packed.chunk(heads)[head].split([key_width, key_width, width])
            own = slice(head * width, (head + 1) * width)
            values[own] = value
            for index, (row, column) in enumerate(places):
                others = [at for j, at in enumerate(places) if j // run == index // run]
                joined[own, row, column] = _attend(
                    query[:, row, column],
                    [key[:, r, c] for r, c in others],
                    [value[:, r, c] for r, c in others],
                    key_width**-0.5,
                )
        joined = joined + normalized(block.pe[1], _depthwise(block.pe[0], values))
        y = x + _conv_norm(block.proj, joined)
        hidden = _conv_norm(block.mlp[0], y)
        return y + _conv_norm(block.mlp[2], hidden * hidden.sigmoid())

    # 15 positions: runs of 4, 4, 4 and 3
    assert_equal(opened(name, heads=heads, mlp_ratio=1.5, **options), formula, features(C, 3, 5))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_window(shift):
    heads, side = 2, 3

    def window_of(place, size):
        """The window, and the part of a window that the roll joined from both sides."""
        label = []
        for at, length in zip(place, size, strict=True):
            moved = shift if length > side else 0
            padded = math.ceil(length / side) * side
            label += [(at - moved) % padded // side, at < moved]
        return label

    def formula(block, x):
        out = torch.zeros_like(x)
        for head in range(heads):
            query, key, value = _head(_maps(block.qkv, x, 3), head, heads)
            for row, column in _places(x):
                label = window_of((row, column), x.shape[1:])
                others = [at for at in _places(x) if window_of(at, x.shape[1:]) == label]
                offsets = [(row - r + 2) * 5 + column - c + 2 for r, c in others]
                out[head * 4 : head * 4 + 4, row, column] = _attend(
                    query[:, row, column],
                    [key[:, r, c] for r, c in others],
                    [value[:, r, c] for r, c in others],
                    4**-0.5,
                    [block.table[offset, head].item() for offset in offsets],
                )
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    block = opened("window", heads=heads, window=side, shift=shift)
    for size in ((5, 4), (3, 7), (1, 1)):
        assert_equal(block, formula, features(C, *size))
