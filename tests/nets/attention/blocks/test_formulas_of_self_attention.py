"""Self-attention blocks against their formulas, as loops over queries and keys in float64."""

import itertools
import math

import pytest
import torch
from loops import C, assert_equal, columns_through, features, normalized, opened, softmax
from torch.nn import functional as F

from nets import attention


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


def _heads(heads):
    """The channels of each head."""
    width = C // heads
    return [slice(head * width, (head + 1) * width) for head in range(heads)]


@pytest.mark.parametrize("kernel_size", [0, 3])
def test_biformer(kernel_size):
    regions, taken = 3, 2

    def formula(block, x):
        query, key, value = _maps(block.qkv, x, 3)
        region = [math.ceil(side / regions) for side in x.shape[1:]]
        members = {}
        for row, column in _places(x):
            members.setdefault((row // region[0], column // region[1]), []).append((row, column))
        means = {
            name: [sum(part[:, r, c] for r, c in at) / len(at) for part in (query, key)]
            for name, at in members.items()
        }
        out = torch.zeros_like(x) if block.pe is None else _depthwise(block.pe, value)
        for name, at in members.items():
            scores = {other: (means[name][0] @ means[other][1]).item() for other in members}
            ranked = sorted(members, key=scores.get, reverse=True)
            others = [place for other in ranked[:taken] for place in members[other]]
            for (row, column), own in itertools.product(at, _heads(2)):
                out[own, row, column] += _attend(
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
    for row, column in _places(local):
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
        for own in _heads(2):
            grid, offsets = _offsets_of(block.offsets, query[own], stride)
            points = []
            for place, offset in offsets.items():
                axes = zip(place, offset, grid, x.shape[1:], strict=True)
                points.append(_bilinear(x[own], *(_sample_point(*a, options) for a in axes)))
            groups.append(torch.stack(points, 1))
        return torch.cat(groups)

    def formula(block, x):
        query = _maps(block.query, x, 1)[0]
        points = sampled(block, x, query)
        key, value = (columns_through(layer, points) for layer in (block.key, block.value))
        out = _depthwise(block.pe, query)
        for (row, column), own in itertools.product(_places(x), _heads(4)):
            scale = (C // 4) ** -0.5
            out[own, row, column] += _attend(
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


@pytest.mark.parametrize("mode", ["sum", "sequential"])
def test_axial(mode):
    def along_columns(lines, x):
        query, key, value = _maps(lines.qkv, x, 3)
        out = torch.zeros_like(x)
        for (row, column), own in itertools.product(_places(x), _heads(2)):
            out[own, row, column] = _attend(
                query[own, row, column], key[own, :, column].T, value[own, :, column].T, 0.5
            )
        return columns_through(lines.out, out.flatten(1)).view(x.shape)

    def formula(block, x):
        vertical = along_columns(block.columns, x)
        before = vertical if mode == "sequential" else x
        horizontal = along_columns(block.rows, before.transpose(1, 2)).transpose(1, 2)
        return x + horizontal + (0 if mode == "sequential" else vertical)

    assert_equal(opened("axial", heads=2, mode=mode), formula, features())


def test_outlook():
    k = 5

    def formula(block, x):
        value, scores = _maps(block.value, x, 1)[0], _maps(block.weights, x, 1)[0]
        out = torch.zeros_like(x)
        inside = set(_places(x))
        for (row, column), (head, own) in itertools.product(_places(x), enumerate(_heads(2))):
            window = [(row + place // k - 2, column + place % k - 2) for place in range(k * k)]
            rows = scores[:, row, column].view(2, k * k, k * k)[head] * (C // 2) ** -0.5
            for target, numbers in zip(window, rows, strict=True):
                if target in inside:
                    for (r, c), weight in zip(window, softmax(numbers.tolist()), strict=True):
                        if (r, c) in inside:
                            out[own, target[0], target[1]] += weight * value[own, r, c]
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    assert_equal(opened("outlook", heads=2, kernel_size=k), formula, features(C, 3, 2)[:1])


@pytest.mark.parametrize("mode", ["conv", "simple"])
def test_aft(mode):
    def offset_weight(block, channel, dy, dx):
        if mode == "simple" or max(abs(dy), abs(dx)) > 1:
            return 0.0
        return block.table[channel * 2 // C, 0, dy + 1, dx + 1].item()

    def formula(block, x):
        query, key, value = _maps(block.qkv, x, 3)
        out, places = x.clone(), _places(x)
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


def _at(maps, places):
    """The vectors of a map at each of the places."""
    return [maps[:, row, column] for row, column in places]


@pytest.mark.parametrize("local_heads", [0, 1, 2])
def test_clo(local_heads):
    window, width = 2, C // 2
    local, far = local_heads * width, (2 - local_heads) * width

    def around(layers, x):
        maps = columns_through(layers.qkv, x.flatten(1)).view(-1, *x.shape[1:])
        query, key, value = _depthwise(layers.local, maps).chunk(3)
        hidden = columns_through(layers.gate[0], (query * key).flatten(1))
        gate = columns_through(layers.gate[2], hidden * hidden.sigmoid()).view(value.shape)
        return (width**-0.5 * gate).tanh() * value

    def coarse(x):
        means = torch.zeros(C, math.ceil(x.shape[1] / window), math.ceil(x.shape[2] / window))
        means = means.double()
        for row, column in _places(means):
            part = x[:, row * window :, column * window :][:, :window, :window]
            means[:, row, column] = part.flatten(1).mean(1)
        return means

    def seen(layers, x):
        query = _maps(layers.query, x, 1)[0]
        means = coarse(x)
        key, value = _maps(layers.key_value, means, 2)
        out = torch.zeros_like(query)
        for (row, column), own in itertools.product(_places(x), _heads(2)[: 2 - local_heads]):
            places = _places(means)
            out[own, row, column] = _attend(
                query[own, row, column], _at(key[own], places), _at(value[own], places), width**-0.5
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
        query, key, value = _maps(block.qkv, x, 3)
        out = torch.zeros_like(x)
        for head, own in enumerate(_heads(2)):
            summary = key[own].flatten(1) @ value[own].flatten(1).T
            rows = torch.stack([block.gain[head, 0, 0] * unit(row) for row in summary])
            for row, column in _places(x):
                direction = block.gain[head, 0, 0] * unit(query[own, row, column])
                out[own, row, column] = direction @ rows
        return x + columns_through(block.out, out.flatten(1)).view(x.shape)

    block = opened("ufo", heads=2)
    assert_equal(block, formula, features())
    torch.nn.init.zeros_(block.qkv.bias)
    assert_equal(block, formula, torch.zeros_like(features()))  # no length, and no NaN


def test_muse():
    def formula(block, x):
        query, key, value = _maps(block.qkv, x, 3)
        attended, places = torch.zeros_like(x), _places(x)
        for (row, column), own in itertools.product(places, _heads(2)):
            attended[own, row, column] = _attend(
                query[own, row, column], _at(key[own], places), _at(value[own], places), 0.5
            )
        y = x + columns_through(block.out, attended.flatten(1)).view(x.shape)
        for share, layers in zip(softmax(block.shares.tolist()), block.scales, strict=True):
            local = _depthwise(layers[0], value) if len(layers) == 2 else value
            y = y + share * columns_through(layers[-1], local.flatten(1)).view(x.shape)
        return y

    block = opened("muse", heads=2)
    assert [layers[0].kernel_size for layers in block.scales] == [(1, 1), (3, 3), (5, 5)]
    assert_equal(block, formula, features())


def test_halo():
    side, margin = 3, 1
    window = side + 2 * margin

    def formula(block, x):
        query = _maps(block.query, x, 1)[0]
        packed = _maps(block.key_value, x, 2)  # for each head the keys, then the values
        out = x.clone()
        for (row, column), head in itertools.product(_places(x), range(2)):
            own = _heads(2)[head]
            key, value = packed[head].chunk(2)
            first = [at // side * side - margin for at in (row, column)]
            others = [
                (r, c)
                for r, c in _places(x)
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
            out[own, row, column] += _attend(
                vector, _at(key, others), _at(value, others), 0.5, [s.item() for s in scores]
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
            parts = [part[own][channel] for part in maps for own in _heads(heads)]
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
        maps = _maps(block.qkv, x, 3)
        query, key, value = maps
        y = x + block.share_conv * convolved(block, maps, x.shape[1:])
        for (row, column), own in itertools.product(_places(x), _heads(heads)):
            others = [
                (_reflected(row + dy, x.shape[1]), _reflected(column + dx, x.shape[2]))
                for dy in range(-(window // 2), window // 2 + 1)
                for dx in range(-(window // 2), window // 2 + 1)
            ]
            here = position(block, x, row, column)
            keys = [key[own, r, c] + here - position(block, x, r, c) for r, c in others]
            y[own, row, column] += block.share_att * _attend(
                query[own, row, column], keys, _at(value[own], others), width**-0.5
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
