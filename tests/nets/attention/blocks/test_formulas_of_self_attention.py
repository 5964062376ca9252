"""Self-attention over maps, areas and axes, as loops over queries and keys in float64."""

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
    normalized,
    opened,
    places_of,
    softmax,
    vectors_at,
)


def _conv_norm(layers, x):
    return normalized(layers[1], columns_through(layers[0], x.flatten(1))).view(-1, *x.shape[1:])


@pytest.mark.parametrize(("name", "options"), [("area", {"area": 4}), ("psa_yolo", {"ratio": 0.5})])
def test_convolutional_attention(name, options):
    heads, width = 2, C // 2
    key_width = width if name == "area" else width // 2

    def formula(block, x):
        places = places_of(x)
        run = math.ceil(len(places) / options.get("area", 1))
        packed = _conv_norm(block.qkv, x)
        joined, values = torch.zeros_like(x), torch.zeros_like(x)
        for head in range(heads):
            query, key, value = packed.chunk(heads)[head].split([key_width, key_width, width])
            own = slice(head * width, (head + 1) * width)
            values[own] = value
            for index, (row, column) in enumerate(places):
                others = [at for j, at in enumerate(places) if j // run == index // run]
                joined[own, row, column] = attend(
                    query[:, row, column],
                    [key[:, r, c] for r, c in others],
                    [value[:, r, c] for r, c in others],
                    key_width**-0.5,
                )
        joined = joined + normalized(block.pe[1], convolved(block.pe[0], values))
        y = x + _conv_norm(block.proj, joined)
        hidden = _conv_norm(block.mlp[0], y)
        return y + _conv_norm(block.mlp[2], hidden * hidden.sigmoid())

    # 15 positions: runs of 4, 4, 4 and 3
    assert_equal(opened(name, heads=heads, mlp_ratio=1.5, **options), formula, features(C, 3, 5))


@pytest.mark.parametrize("mode", ["sum", "sequential"])
def test_axial(mode):
    def along_columns(lines, x):
        query, key, value = maps_of(lines.qkv, x, 3)
        out = torch.zeros_like(x)
        for (row, column), own in itertools.product(places_of(x), head_channels(2)):
            out[own, row, column] = attend(
                query[own, row, column], key[own, :, column].T, value[own, :, column].T, 0.5
            )
        return columns_through(lines.out, out.flatten(1)).view(x.shape)

    def formula(block, x):
        vertical = along_columns(block.columns, x)
        before = vertical if mode == "sequential" else x
        horizontal = along_columns(block.rows, before.transpose(1, 2)).transpose(1, 2)
        return x + horizontal + (0 if mode == "sequential" else vertical)

    assert_equal(opened("axial", heads=2, mode=mode), formula, features())


@pytest.mark.parametrize("mode", ["conv", "simple"])
def test_aft(mode):
    def offset_weight(block, channel, dy, dx):
        if mode == "simple" or max(abs(dy), abs(dx)) > 1:
            return 0.0
        return block.table[channel * 2 // C, 0, dy + 1, dx + 1].item()

    def formula(block, x):
        query, key, value = maps_of(block.qkv, x, 3)
        out, places = x.clone(), places_of(x)
        for (row, column), channel in itertools.product(places, range(C)):
            weights = softmax(
                [
                    key[channel, r, c].item() + offset_weight(block, channel, r - row, c - column)
                    for r, c in places
                ]
            )
            mean = sum(w * value[channel, r, c] for w, (r, c) in zip(weights, places, strict=True))
            out[channel, row, column] += query[channel, row, column].sigmoid() * mean
        return out

    block = opened("aft", heads=2, mode=mode, kernel_size=3)
    assert_equal(block, formula, features(C, 3, 4))
    block.qkv.bias.data[C : 2 * C] = 2000  # e^2000 is not finite
    assert_equal(block, formula, features(C, 3, 4))


@pytest.mark.parametrize("local_heads", [0, 1, 2])
def test_clo(local_heads):
    window, width = 2, C // 2
    local, far = local_heads * width, (2 - local_heads) * width

    def around(layers, x):
        maps = columns_through(layers.qkv, x.flatten(1)).view(-1, *x.shape[1:])
        query, key, value = convolved(layers.local, maps).chunk(3)
        hidden = columns_through(layers.gate[0], (query * key).flatten(1))
        gate = columns_through(layers.gate[2], hidden * hidden.sigmoid()).view(value.shape)
        return (width**-0.5 * gate).tanh() * value

    def coarse(x):
        means = torch.zeros(C, math.ceil(x.shape[1] / window), math.ceil(x.shape[2] / window))
        means = means.double()
        for row, column in places_of(means):
            part = x[:, row * window :, column * window :][:, :window, :window]
            means[:, row, column] = part.flatten(1).mean(1)
        return means

    def seen(layers, x):
        query = maps_of(layers.query, x, 1)[0]
        means = coarse(x)
        key, value = maps_of(layers.key_value, means, 2)
        out = torch.zeros_like(query)
        for (row, column), own in itertools.product(
            places_of(x), head_channels(2)[: 2 - local_heads]
        ):
            places = places_of(means)
            out[own, row, column] = attend(
                query[own, row, column],
                vectors_at(key[own], places),
                vectors_at(value[own], places),
                width**-0.5,
            )
        return out

    def formula(block, x):
        parts = [around(block.around, x)] if local else []
        parts += [seen(block.far, x)] if far else []
        return x + columns_through(block.out, torch.cat(parts).flatten(1)).view(x.shape)

    block = opened("clo", heads=2, local_heads=local_heads, kernel_size=3, window=window)
    assert_equal(block, formula, features())


def test_ufo():
    def unit(values):
        length = math.sqrt(sum(value.item() ** 2 for value in values))
        return values / length if length else values

    def formula(block, x):
        query, key, value = maps_of(block.qkv, x, 3)
        out = torch.zeros_like(x)
        for head, own in enumerate(head_channels(2)):
            summary = key[own].flatten(1) @ value[own].flatten(1).T
            rows = torch.stack([block.gain[head, 0, 0] * unit(row) for row in summary])
            for row, column in places_of(x):
                direction = block.gain[head, 0, 0] * unit(query[own, row, column])
                out[own, row, column] = direction @ rows
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    block = opened("ufo", heads=2)
    assert_equal(block, formula, features())
    torch.nn.init.zeros_(block.qkv.bias)
    assert_equal(block, formula, torch.zeros_like(features()))  # no length, and no NaN


def test_muse():
    def formula(block, x):
        query, key, value = maps_of(block.qkv, x, 3)
        attended, places = torch.zeros_like(x), places_of(x)
        for (row, column), own in itertools.product(places, head_channels(2)):
            attended[own, row, column] = attend(
                query[own, row, column],
                vectors_at(key[own], places),
                vectors_at(value[own], places),
                0.5,
            )
        y = x + columns_through(block.out, attended.flatten(1)).view(x.shape)
        for share, layers in zip(softmax(block.shares.tolist()), block.scales, strict=True):
            local = convolved(layers[0], value) if len(layers) == 2 else value
            y = y + share * columns_through(layers[-1], local.flatten(1)).view(x.shape)
        return y

    block = opened("muse", heads=2)
    assert [layers[0].kernel_size for layers in block.scales] == [(1, 1), (3, 3), (5, 5)]
    assert_equal(block, formula, features())
