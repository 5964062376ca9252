"""Self-attention inside windows and neighborhoods, as loops in float64."""

import itertools
import math

import pytest
import torch
from loops import (
    C,
    assert_equal,
    attend,
    columns_through,
    features,
    head_channels,
    maps_of,
    opened,
    places_of,
    softmax,
    vectors_at,
)
from torch.nn import functional as F

from nets import attention


def _head(maps, head, heads):
    """The channels of one head of each map (C, H, W)."""
    return [part.chunk(heads)[head] for part in maps]


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
            query, key, value = _head(maps_of(block.qkv, x, 3), head, heads)
            for row, column in places_of(x):
                label = window_of((row, column), x.shape[1:])
                others = [at for at in places_of(x) if window_of(at, x.shape[1:]) == label]
                offsets = [(row - r + 2) * 5 + column - c + 2 for r, c in others]
                out[head * 4 : head * 4 + 4, row, column] = attend(
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


def test_outlook():
    k = 5

    def formula(block, x):
        value, scores = maps_of(block.value, x, 1)[0], maps_of(block.weights, x, 1)[0]
        out = torch.zeros_like(x)
        inside = set(places_of(x))
        for (row, column), (head, own) in itertools.product(
            places_of(x), enumerate(head_channels(2))
        ):
            window = [(row + place // k - 2, column + place % k - 2) for place in range(k * k)]
            rows = scores[:, row, column].view(2, k * k, k * k)[head] * (C // 2) ** -0.5
            for target, numbers in zip(window, rows, strict=True):
                if target in inside:
                    for (r, c), weight in zip(window, softmax(numbers.tolist()), strict=True):
                        if (r, c) in inside:
                            out[own, target[0], target[1]] += weight * value[own, r, c]
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    assert_equal(opened("outlook", heads=2, kernel_size=k), formula, features(C, 3, 2)[:1])


def test_halo():
    side, margin = 3, 1
    window = side + 2 * margin

    def formula(block, x):
        query = maps_of(block.query, x, 1)[0]
        packed = maps_of(block.key_value, x, 2)  # for each head the keys, then the values
        out = x.clone()
        for (row, column), head in itertools.product(places_of(x), range(2)):
            own = head_channels(2)[head]
            key, value = packed[head].chunk(2)
            first = [at // side * side - margin for at in (row, column)]
            others = [
                (r, c)
                for r, c in places_of(x)
                if 0 <= r - first[0] < window and 0 <= c - first[1] < window
            ]
            vector = query[own, row, column]
            scores = [
                vector
                @ (
                    block.rows[r - first[0] - row % side + window - 1]
                    + block.columns[c - first[1] - column % side + window - 1]
                )
                for r, c in others
            ]
            out[own, row, column] += attend(
                vector,
                vectors_at(key, others),
                vectors_at(value, others),
                0.5,
                [s.item() for s in scores],
            )
        return out

    block = opened("halo", heads=2, block=side, halo=margin)
    for size in ((5, 7), (1, 2)):
        assert_equal(block, formula, features(C, *size))


def _reflected(index, length):
    index = abs(index)
    return max(2 * (length - 1) - index if index > length - 1 else index, 0)


@pytest.mark.parametrize("bias", [False, True])
def test_acmix(bias):
    heads, width, window = 2, C // 2, 5

    def coordinate(index, length):
        return 2 * index / (length - 1) - 1 if length > 1 else -1.0

    def position(block, x, row, column):
        at = [coordinate(column, x.shape[2]), coordinate(row, x.shape[1])]
        return columns_through(block.position, torch.tensor(at, dtype=x.dtype)[:, None])[:, 0]

    def convolved(block, maps, size):
        layers = block.shared
        mixed = torch.zeros(width * 9, *size, dtype=maps[0].dtype)
        for channel in range(width):
            parts = [part[own][channel] for part in maps for own in head_channels(heads)]
            rows = columns_through(layers.mix, torch.stack(parts).flatten(1))
            mixed[channel * 9 : channel * 9 + 9] = rows.view(9, *size)
        padded = F.pad(mixed, [1] * 4)
        out = torch.zeros(C, *size, dtype=mixed.dtype)
        for channel, (dy, dx) in itertools.product(range(C), itertools.product(range(3), range(3))):
            group = slice(channel // heads * 9, channel // heads * 9 + 9)
            kernel = layers.conv.weight[channel, :, dy, dx][:, None, None]
            shifted = padded[group, dy : dy + size[0], dx : dx + size[1]]
            out[channel] += (kernel * shifted).sum(0)
        return out if layers.conv.bias is None else out + layers.conv.bias[:, None, None]

    def formula(block, x):
        maps = maps_of(block.qkv, x, 3)
        query, key, value = maps
        y = x + block.share_conv * convolved(block, maps, x.shape[1:])
        for (row, column), own in itertools.product(places_of(x), head_channels(heads)):
            others = [
                (_reflected(row + dy, x.shape[1]), _reflected(column + dx, x.shape[2]))
                for dy in range(-(window // 2), window // 2 + 1)
                for dx in range(-(window // 2), window // 2 + 1)
            ]
            here = position(block, x, row, column)
            keys = [key[own, r, c] + here - position(block, x, r, c) for r, c in others]
            y[own, row, column] += block.share_att * attend(
                query[own, row, column], keys, vectors_at(value[own], others), width**-0.5
            )
        return y

    block = opened("acmix", heads=heads, kernel_att=window, bias=bias)
    for size in ((6, 4), (3, 2), (1, 1)):
        assert_equal(block, formula, features(C, *size)[:1])


def test_the_convolution_of_acmix_starts_as_the_sum_of_shifts():
    block = attention.build({"name": "acmix", "heads": 2}, C)
    mixed = torch.randn(1, C // 2 * 9, 4, 5)
    padded = F.pad(mixed, [1] * 4).unflatten(1, (C // 2, 9))
    shifts = [padded[:, :, i, i // 3 : i // 3 + 4, i % 3 : i % 3 + 5] for i in range(9)]
    expected = sum(shifts).repeat_interleave(2, 1)  # the same for each head
    assert torch.allclose(block.shared.conv(mixed), expected, atol=1e-6)
