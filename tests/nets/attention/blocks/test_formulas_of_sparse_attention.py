"""Self-attention to chosen regions and sampled points, as loops in float64."""

import itertools
import math

import pytest
import torch
from loops import (
    C,
    assert_equal,
    attend,
    columns_through,
    convolved,
    features,
    head_channels,
    maps_of,
    opened,
    places_of,
)
from torch.nn import functional as F


@pytest.mark.parametrize("kernel_size", [0, 3])
def test_biformer(kernel_size):
    regions, taken = 3, 2

    def formula(block, x):
        query, key, value = maps_of(block.qkv, x, 3)
        region = [math.ceil(side / regions) for side in x.shape[1:]]
        members = {}
        for row, column in places_of(x):
            members.setdefault((row // region[0], column // region[1]), []).append((row, column))
        means = {
            name: [sum(part[:, r, c] for r, c in at) / len(at) for part in (query, key)]
            for name, at in members.items()
        }
        out = torch.zeros_like(x) if block.pe is None else convolved(block.pe, value)
        for name, at in members.items():
            scores = {other: (means[name][0] @ means[other][1]).item() for other in members}
            ranked = sorted(members, key=scores.get, reverse=True)
            others = [place for other in ranked[:taken] for place in members[other]]
            for (row, column), own in itertools.product(at, head_channels(2)):
                out[own, row, column] += attend(
                    query[own, row, column],
                    [key[own, r, c] for r, c in others],
                    [value[own, r, c] for r, c in others],
                    C**-0.5,
                )
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    block = opened("biformer", heads=2, windows=regions, topk=taken, kernel_size=kernel_size)
    assert_equal(block, formula, features(C, 4, 7))
    assert_equal(block, formula, features(C, 6, 3))


def _bilinear(x, row, column):
    """x (C, H, W) at a fractional place, zero outside."""
    total = torch.zeros_like(x[:, 0, 0])
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
                total = total + (1 - abs(row - r)) * (1 - abs(column - c)) * x[:, r, c]
    return total


def _sample_point(index, offset, points, side, options):
    """Where, along one axis of `side` positions, one of `points` samples is taken."""
    steps = max(points - 1, 1)
    at = 2 * (index + (0.5 if options["reference"] == "code" else 0)) / steps - 1
    if options["offset_range"] < 0:
        at = min(max(at + offset, -1), 1)
    else:
        at += math.tanh(offset) * options["offset_range"] / steps
    return (at + 1) / 2 * (side - 1)


def _offsets_of(layers, query, stride):
    """The grid's size, and the two offsets at each of its places."""
    local = F.conv2d(query[None], layers.conv.weight, layers.conv.bias, stride, 1, 1, len(query))[0]
    offsets = {}
    for row, column in places_of(local):
        token = local[:, row, column]
        token = (token - token.mean()) / (token.var(unbiased=False) + 1e-5).sqrt()
        token = token * layers.norm.weight + layers.norm.bias
        token = token * (1 + torch.erf(token / math.sqrt(2))) / 2
        offsets[row, column] = (layers.out.weight @ token).tolist()
    return local.shape[1:], offsets


@pytest.mark.parametrize(
    ("stride", "offset_range", "reference"), [(2, 4, "paper"), (1, 2, "code"), (2, -1, "paper")]
)
def test_dat(stride, offset_range, reference):
    options = {"stride": stride, "offset_range": offset_range, "reference": reference}

    def sampled(block, x, query):
        """x at the points, (C, h * w)."""
        groups = []
        for own in head_channels(2):
            grid, offsets = _offsets_of(block.offsets, query[own], stride)
            points = []
            for place, offset in offsets.items():
                axes = zip(place, offset, grid, x.shape[1:], strict=True)
                points.append(_bilinear(x[own], *(_sample_point(*a, options) for a in axes)))
            groups.append(torch.stack(points, 1))
        return torch.cat(groups)

    def formula(block, x):
        query = maps_of(block.query, x, 1)[0]
        points = sampled(block, x, query)
        key, value = (columns_through(layer, points) for layer in (block.key, block.value))
        out = convolved(block.pe, query)
        for (row, column), own in itertools.product(places_of(x), head_channels(4)):
            scale = (C // 4) ** -0.5
            out[own, row, column] += attend(
                query[own, row, column], key[own].T, value[own].T, scale
            )
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    block = opened("dat", heads=4, groups=2, **options)
    for size in ((3, 5), (1, 2)):
        assert_equal(block, formula, features(C, *size))


def test_samples_that_stay_are_the_positions_themselves():
    block, mhsa = opened("dat", heads=2, groups=1, stride=1), opened("mhsa", heads=2)
    for parameter in (block.offsets.out.weight, *block.pe.parameters()):
        torch.nn.init.zeros_(parameter)
    layers = [block.query, block.key, block.value]
    mhsa.qkv.weight.data = torch.cat([layer.weight.flatten(1) for layer in layers])
    mhsa.qkv.bias.data = torch.cat([layer.bias for layer in layers])
    mhsa.out.weight.data, mhsa.out.bias.data = block.out.weight.flatten(1), block.out.bias
    x = features(C, 5, 7)
    assert torch.allclose(block(x), mhsa(x), rtol=0, atol=1e-12)
