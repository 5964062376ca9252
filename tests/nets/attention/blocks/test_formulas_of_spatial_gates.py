"""Spatial and mixed gates against their papers' formulas, written as loops in float64."""

import math

import pytest
import torch
from loops import (
    C,
    H,
    N,
    W,
    adaptive_pooled,
    assert_equal,
    columns_through,
    convolved,
    features,
    mlp,
    normalized,
    opened,
    pointwise,
    softmax,
    standardized,
)
from torch.nn import functional as F


def test_simam():
    def formula(_, x):
        y = []
        for channel in x:
            squares = (channel - channel.sum() / N) ** 2
            variance = squares.sum() / (N - 1)
            y.append(channel * (squares / (4 * (variance + 1e-4)) + 0.5).sigmoid())
        return torch.stack(y)

    assert_equal(opened("simam"), formula, features())


@pytest.mark.parametrize("groups", [1, 2])
def test_gam(groups):
    def formula(block, x):
        gated = x * pointwise(block.channel[2], pointwise(block.channel[0], x).relu()).sigmoid()
        layers = [layer for layer in block.spatial if list(layer.parameters())]
        first, norm, second, last = layers
        hidden = normalized(norm, convolved(first, gated)).relu()
        shuffled = [hidden[start::2] for start in (0, 1)] if groups == 2 else [hidden]
        if groups == 2:  # of 4 channels: 0, 2, 1, 3
            hidden = torch.cat(shuffled)
        return gated * normalized(last, convolved(second, hidden)).sigmoid()

    assert_equal(opened("gam", reduction=2, groups=groups), formula, features())


def test_ema():
    def formula(block, x):
        out = []
        for u in x.split(4):
            rows = columns_through(block.conv1x1, u.mean(2)).sigmoid()
            columns = columns_through(block.conv1x1, u.mean(1)).sigmoid()
            product = u * rows[:, :, None] * columns[:, None]
            p = torch.stack(
                [
                    block.norm.weight[c] * standardized(product[c], 1e-5) + block.norm.bias[c]
                    for c in range(4)
                ]
            )
            q = convolved(block.conv3x3, u)
            score = torch.zeros_like(u[0])
            for weights, values in ((p, q), (q, p)):
                shares = softmax([channel.mean().item() for channel in weights])
                score += sum(a * v for a, v in zip(shares, values, strict=True))
            out.append(u * score.sigmoid())
        return torch.cat(out)

    assert_equal(opened("ema", groups=2), formula, features())


def test_shuffle():
    def formula(block, x):
        gated = []
        for group in x.split(4):
            for i in range(2):
                score = block.channel_weight[i] * group[i].mean() + block.channel_bias[i]
                gated.append(group[i] * score.sigmoid())
            for i in range(2):
                normed = standardized(group[2 + i], 1e-5)
                normed = block.norm.weight[i] * normed + block.norm.bias[i]
                score = block.spatial_weight[i] * normed + block.spatial_bias[i]
                gated.append(group[2 + i] * score.sigmoid())
        return torch.stack([gated[channel] for channel in (0, 4, 1, 5, 2, 6, 3, 7)])

    assert_equal(opened("shuffle", groups=2), formula, features())


def test_sge():
    def formula(block, x):
        out = []
        for g, u in enumerate(x.split(4)):
            likeness = sum(channel * channel.mean() for channel in u)
            centered = likeness - likeness.mean()
            deviation = math.sqrt((centered**2).sum() / (N - 1))
            score = block.weight[g] * centered / (deviation + 1e-5) + block.bias[g]
            out.append(u * score.sigmoid())
        return torch.cat(out)

    assert_equal(opened("sge", groups=2), formula, features())


def _polarized_channel(part, x, paper, sequential):
    columns = x.flatten(1)
    weights = torch.tensor(softmax(columns_through(part.query, columns)[0].tolist()))
    z = (columns_through(part.value, columns) * weights).sum(1)
    wide = columns_through(part.out[0], z[:, None])[:, 0]
    if sequential and not paper:
        normed = standardized(wide, 1e-5) * part.out[1].weight + part.out[1].bias
        wide = columns_through(part.out[3], normed.relu()[:, None])[:, 0]
    if paper:
        wide = standardized(wide, 1e-5) * part.out[1].weight + part.out[1].bias
    return wide.sigmoid()[:, None, None]


def _polarized_spatial(part, x, paper, sequential):
    columns = x.flatten(1)
    query = columns_through(part.query, columns).mean(1)
    value = columns_through(part.value, columns)
    if paper:
        query = torch.tensor(softmax(query.tolist()))
    elif sequential:
        value = torch.tensor([softmax(row.tolist()) for row in value])
    score = query @ value
    if not paper and not sequential:
        score = torch.tensor(softmax(score.tolist()))
    return score.sigmoid().view(x.shape[1:])


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_polarized(mode, variant):
    kind = (variant == "paper", mode == "sequential")

    def formula(block, x):
        by_channel = x * _polarized_channel(block.channel, x, *kind)
        if mode == "sequential":
            return by_channel * _polarized_spatial(block.spatial, by_channel, *kind)
        return by_channel + x * _polarized_spatial(block.spatial, x, *kind)

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of tensors made from lists
    try:
        block = opened("polarized", 16, mode=mode, variant=variant)
        assert_equal(block, formula, features(16))
    finally:
        torch.set_default_dtype(previous)


@pytest.mark.parametrize("size", [(H, W), (6, 7)])
def test_mlca(size):
    """Kernel 3 at C = 8: log2(8) + 1 over 2 is 2, made odd."""

    def neighbors(conv, sequence):
        kernel, wide = conv.weight.flatten(), F.pad(sequence, [1, 1])
        return torch.stack([kernel @ wide[i : i + 3] for i in range(len(sequence))])

    def formula(block, x):
        pooled = adaptive_pooled(x, 5, 5)
        cells = [pooled[:, r, c] for r in range(5) for c in range(5)]
        local = neighbors(block.local, torch.cat(cells)).sigmoid().view(5, 5, C)
        whole = neighbors(block.whole, sum(cells) / 25).sigmoid()
        grid = (0.3 * local + 0.7 * whole).permute(2, 0, 1)
        return x * adaptive_pooled(grid, *size)

    assert_equal(opened("mlca", local_weight=0.3), formula, features(C, *size))


@pytest.mark.parametrize(
    "options", [{"kernel_size": 7, "norm_groups": 2}, {"kernel_size": 1, "width": 0, "bias": True}]
)
def test_ela(options):
    groups = options.get("norm_groups", 8)

    def gate(block, lines):
        size = options["kernel_size"]
        wide = F.pad(lines, [size // 2] * 2)
        out = torch.zeros_like(lines)
        for c in range(C):
            inputs = wide if options.get("width") == 0 else wide[c : c + 1]
            for i in range(lines.shape[1]):
                out[c, i] = (block.conv.weight[c] * inputs[:, i : i + size]).sum()
        if block.conv.bias is not None:
            out = out + block.conv.bias[:, None]
        normed = torch.cat([standardized(part, 1e-5) for part in out.split(C // groups)])
        return (normed * block.norm.weight[:, None] + block.norm.bias[:, None]).sigmoid()

    def formula(block, x):
        return x * gate(block, x.mean(2))[:, :, None] * gate(block, x.mean(1))[:, None]

    assert_equal(opened("ela", **options), formula, features())


@pytest.mark.parametrize("norm", [True, False])
def test_caa(norm):
    def formula(block, x):
        layers = [layer for layer in block.layers if list(layer.parameters())]
        wide = F.pad(x, [3] * 4)
        y = torch.stack(
            [wide[:, h : h + 7, w : w + 7].sum((1, 2)) / 49 for h in range(H) for w in range(W)], 1
        )
        y = y.view_as(x)
        for layer in layers:
            if len(layer.weight.shape) == 1:
                assert layer.eps == 1e-3
                y = F.silu(normalized(layer, y))
            else:
                y = convolved(layer, y)
        return x * y.sigmoid()

    assert_equal(opened("caa", norm=norm), formula, features())


@pytest.mark.parametrize(
    "options", [{}, {"projections": False}, {"shared": False}], ids=["shared", "none", "own"]
)
def test_cpca(options):
    def formula(block, x):
        u = F.gelu(pointwise(block.before, x)) if options.get("projections", True) else x
        scores = [mlp(block.channel, z) for z in (u.mean((1, 2)), u.amax((1, 2)))]
        v = u * (scores[0].sigmoid() + scores[1].sigmoid())[:, None, None]
        z = convolved(block.local, v)
        total = z + sum(convolved(column, convolved(row, z)) for row, column in block.strips)
        y = v * pointwise(block.mix, total)
        return pointwise(block.after, y) if options.get("projections", True) else y

    block = opened("cpca", reduction=2, **options)
    layers = {id(layer) for layer in (block.before, block.mix, block.after)}
    assert len(layers) == {"projections": 2, "shared": 3}.get(next(iter(options), ""), 1)
    assert_equal(block, formula, features())


def _large_kernel(block, x, factor):
    if block.before is None:
        return x * factor(x)
    inside = F.gelu(pointwise(block.before, x))
    return x + pointwise(block.after, inside * factor(inside))


@pytest.mark.parametrize(
    ("name", "options", "dilations"),
    [
        ("lka", {}, (1, 3)),
        ("lka", {"kernel_size": 9, "dilation": 2, "projections": True}, (1, 2)),
        ("lska", {}, (1, 1, 2, 2)),
        ("lska", {"kernel_size": 23, "projections": True}, (1, 1, 3, 3)),
    ],
)
def test_lka_and_lska(name, options, dilations):
    def formula(block, x):
        def factor(u):
            for layer, dilation in zip(block.layers, dilations, strict=False):
                u = convolved(layer, u, dilation)
            return pointwise(block.layers[-1], u)

        return _large_kernel(block, x, factor)

    block = opened(name, **options)
    assert len(block.layers) == len(dilations) + 1
    assert_equal(block, formula, features(C, 7, 8))


@pytest.mark.parametrize("projections", [False, True])
def test_lsk(projections):
    def formula(block, x):
        def factor(u):
            near = convolved(block.near, u)
            p = pointwise(block.from_near, near)
            q = pointwise(block.from_far, convolved(block.far, near, 3))
            both = torch.cat([p, q])
            planes = torch.stack([both.mean(0), both.max(0).values])
            s, t = convolved(block.select, planes).sigmoid()
            return pointwise(block.out, p * s + q * t)

        return _large_kernel(block, x, factor)

    assert_equal(opened("lsk", projections=projections), formula, features(C, 7, 8))


def test_strip():
    def formula(block, x):
        rows = normalized(block.rows[1], convolved(block.rows[0], x.mean(2)[:, :, None]))
        columns = normalized(block.columns[1], convolved(block.columns[0], x.mean(1)[:, None]))
        return x * pointwise(block.out, F.relu(rows + columns)).sigmoid()

    assert_equal(opened("strip"), formula, 10 * features())  # the ReLU sees both signs


def test_parnet():
    def formula(block, x):
        gate = columns_through(block.excite, x.mean((1, 2))[:, None]).sigmoid()
        point = normalized(block.point[1], pointwise(block.point[0], x))
        local = normalized(block.local[1], convolved(block.local[0], x))
        return F.silu(point + local + x * gate[:, :, None])

    assert_equal(opened("parnet"), formula, features())


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "share": 4, "residual": True}])
def test_cot(options):
    channels, size, share = 16, options.get("kernel_size", 3), options.get("share", 8)
    sets = channels // share

    def formula(block, x):
        key = normalized(block.key[1], convolved(block.key[0], x)).relu()
        hidden = pointwise(block.embed[0], torch.cat([x, key]))
        raw = pointwise(block.embed[3], normalized(block.embed[1], hidden).relu())
        norm = block.embed[4]
        weights = torch.cat([standardized(part, 1e-5) for part in raw.split(size**2)])
        weights = weights * norm.weight[:, None, None] + norm.bias[:, None, None]
        value = normalized(block.value[1], pointwise(block.value[0], x))
        wide = F.pad(value, [size // 2] * 4)
        mixed = torch.zeros_like(x)
        for c in range(channels):
            kernels = weights.view(sets, size, size, H, W)[c % sets]
            for h in range(H):
                for w in range(W):
                    window = wide[c, h : h + size, w : w + size]
                    mixed[c, h, w] = (kernels[:, :, h, w] * window).sum()
        u = F.silu(normalized(block.bn, mixed))
        z = columns_through(block.fuse[0], (u + key).mean((1, 2))[:, None])
        scores = columns_through(block.fuse[3], normalized(block.fuse[1], z).relu()).view(-1, 2)
        y = []
        for c in range(channels):
            shares = softmax(scores[c].tolist())
            y.append(shares[0] * u[c] + shares[1] * key[c])
        return torch.stack(y) + (x if options.get("residual") else 0)

    assert_equal(opened("cot", channels, **options), formula, features(channels))
