"""Attention between positions or channels against the papers' formulas, as loops in float64."""

import math

import pytest
import torch
from loops import C, H, N, W, assert_equal, columns_through, features, normalized, opened, softmax
from torch.nn import functional as F


def _attended_positions(attended, x):
    """sum_j A_ij v_j of pam, (C, N)."""
    columns = x.flatten(1)
    query, key, value = (
        columns_through(layer, columns) for layer in (attended.query, attended.key, attended.value)
    )
    out = torch.zeros_like(value)
    for i in range(columns.shape[1]):
        weights = softmax([(query[:, i] @ key[:, j]).item() for j in range(columns.shape[1])])
        for j, weight in enumerate(weights):
            out[:, i] += weight * value[:, j]
    return out


def _attended_channels(x):
    """A f of cam, (C, N); max - E turns the order of the energies around."""
    columns = x.flatten(1)
    out = torch.zeros_like(columns)
    for i in range(len(columns)):
        energy = [(columns[i] @ columns[j]).item() for j in range(len(columns))]
        for j, weight in enumerate(softmax([max(energy) - value for value in energy])):
            out[i] += weight * columns[j]
    return out


@pytest.mark.parametrize("name", ["self_attention", "pam"])
def test_self_attention(name):
    def formula(block, x):
        return x + (block.gamma * _attended_positions(block.attended, x)).view(x.shape)

    assert_equal(opened(name, reduction=4), formula, features())


def test_cam():
    assert_equal(
        opened("cam"),
        lambda block, x: x + (block.gamma * _attended_channels(x)).view(x.shape),
        0.5 * features(),
    )


@pytest.mark.parametrize("residual", ["once", "both"])
def test_danet(residual):
    def formula(block, x):
        positions = block.gamma_position * _attended_positions(block.position, x)
        channels = block.gamma_channel * _attended_channels(x)
        return (2 if residual == "both" else 1) * x + (positions + channels).view(x.shape)

    assert_equal(opened("danet", residual=residual), formula, 0.5 * features())


def test_danet_head():
    def conv(layers, x):
        return F.relu(normalized(layers[1], F.conv2d(x[None], layers[0].weight, padding=1)[0]))

    def formula(block, x):
        total = 0
        for branch in (block.position, block.channel):
            reduced = conv(branch[0:2], x)
            is_position = branch is block.position
            attended = (
                _attended_positions(branch[3].attended, reduced)
                if is_position
                else _attended_channels(reduced)
            )
            total = total + conv(
                branch[4:6], reduced + (branch[3].gamma * attended).view(reduced.shape)
            )
        return columns_through(block.out, total.flatten(1)).view(x.shape)

    assert_equal(opened("danet_head", reduction=2), formula, features())


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_ccnet(recurrence):
    def once(block, x):
        query, key, value = (
            columns_through(layer, x.flatten(1)).view(-1, H, W)
            for layer in (block.query, block.key, block.value)
        )
        out = x.clone()
        for h in range(H):
            for w in range(W):
                cross = [(g, w) for g in range(H)] + [
                    (h, v) for v in range(W) if v != w
                ]  # H + W - 1 positions
                weights = softmax([(query[:, h, w] @ key[:, g, v]).item() for g, v in cross])
                for (g, v), weight in zip(cross, weights, strict=True):
                    out[:, h, w] += block.gamma * weight * value[:, g, v]
        return out

    def formula(block, x):
        for _ in range(recurrence):
            x = once(block, x)
        return x

    assert_equal(opened("ccnet", reduction=2, recurrence=recurrence), formula, features())


def test_a2():
    def formula(block, x):
        columns = x.flatten(1)
        features, gather, distribute = (
            columns_through(m, columns) for m in (block.features, block.gather, block.distribute)
        )
        where = torch.tensor([softmax(row.tolist()) for row in gather], dtype=torch.float64)
        which = torch.tensor(
            [softmax(column.tolist()) for column in distribute.T], dtype=torch.float64
        ).T
        out = torch.zeros(len(features), N, dtype=torch.float64)
        for i in range(N):
            for slot in range(len(where)):
                for j in range(N):
                    out[:, i] += which[slot, i] * where[slot, j] * features[:, j]
        return x + columns_through(block.out, out).view(x.shape)

    assert_equal(opened("a2", c_m=3, c_n=5), formula, features())


@pytest.mark.parametrize("projections", [False, True])
def test_external(projections):
    def formula(block, x):
        columns = columns_through(block.before, x.flatten(1)) if projections else x.flatten(1)
        scores = columns_through(block.memory_key, columns)
        weights = torch.tensor([softmax(row.tolist()) for row in scores], dtype=torch.float64)
        for j in range(N):
            weights[:, j] = weights[:, j] / (
                sum(weights[s, j].item() for s in range(len(weights))) + 1e-9
            )
        out = columns_through(block.memory_value, weights)
        if projections:
            out = normalized(block.after[1], columns_through(block.after[0], out))
        return x + out.view(x.shape)

    assert_equal(opened("external", slots=5, projections=projections), formula, features())


def _emsa_keys(block, x, sr):
    """Coarser tokens (C, N'): strided depthwise windows, then LayerNorm over the channels."""
    padded = F.pad(x, [sr // 2] * 4)
    rows, columns = (range(0, side + 2 * (sr // 2) - sr, sr) for side in x.shape[1:])
    tokens = []
    for top in rows:
        for left in columns:
            window = padded[:, top : top + sr + 1, left : left + sr + 1]
            token = (window * block.reduce.weight[:, 0]).sum((1, 2)) + block.reduce.bias
            token = (token - token.mean()) / (token.var(unbiased=False) + block.norm.eps).sqrt()
            tokens.append(token * block.norm.weight + block.norm.bias)
    return torch.stack(tokens, 1)


@pytest.mark.parametrize("sr_ratio", [1, 2, 3])
@pytest.mark.parametrize("transform", [True, False])
def test_emsa(sr_ratio, transform):
    def formula(block, x):
        heads, width = 2, C // 2
        query = columns_through(block.q, x.flatten(1))
        coarse = x.flatten(1) if sr_ratio == 1 else _emsa_keys(block, x, sr_ratio)
        key, value = columns_through(block.kv, coarse).chunk(2)
        parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
        scores = torch.stack([query[part].T @ key[part] / math.sqrt(width) for part in parts])
        if transform:
            mix, bias = block.mix.weight[:, :, 0, 0], block.mix.bias
            scores = torch.stack(
                [sum(mix[o, i] * scores[i] for i in range(heads)) + bias[o] for o in range(heads)]
            )
        weights = torch.tensor(
            [[softmax(row.tolist()) for row in head] for head in scores], dtype=torch.float64
        )
        if transform:
            weights = torch.stack(
                [(a - a.mean()) / (a.var(unbiased=False) + 1e-5).sqrt() for a in weights]
            )
        out = torch.cat([value[part] @ weights[head].T for head, part in enumerate(parts)])
        return x + columns_through(block.out, out).view(x.shape)

    assert_equal(
        opened("emsa", heads=2, sr_ratio=sr_ratio, transform=transform), formula, features()
    )


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize("bn", [True, False])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_non_local(mode, bn, sub_sample, dimension):
    def pool(x):
        return (
            getattr(F, f"max_pool{dimension}d")(x[None], (1, 2, 2) if dimension == 3 else 2)[0]
            if sub_sample
            else x
        )

    def formula(block, x):
        sides = x.shape[1:]
        g = pool(columns_through(block.g, x.flatten(1)).view(-1, *sides)).flatten(1)
        theta = x.flatten(1) if mode == "gaussian" else columns_through(block.theta, x.flatten(1))
        phi = pool(
            x if mode == "gaussian" else columns_through(block.phi, x.flatten(1)).view(-1, *sides)
        ).flatten(1)
        out, keys = torch.zeros(len(g), theta.shape[1], dtype=torch.float64), phi.shape[1]
        for i in range(theta.shape[1]):
            if mode == "concatenation":
                pairs = [torch.cat([theta[:, i], phi[:, j]]) for j in range(keys)]
                weights = [max((block.score.weight[0] @ pair).item(), 0) / keys for pair in pairs]
            else:
                products = [(theta[:, i] @ phi[:, j]).item() for j in range(keys)]
                weights = (
                    [value / keys for value in products]
                    if mode == "dot_product"
                    else softmax(products)
                )
            for j, weight in enumerate(weights):
                out[:, i] += weight * g[:, j]
        y = columns_through(block.W, out).view(x.shape)
        return x + (normalized(block.bn, y) if bn else y)

    x = torch.randn(2, C, *(2, 2, 3)[-dimension:], dtype=torch.float64)
    assert_equal(
        opened("non_local", mode=mode, dimension=dimension, sub_sample=sub_sample, bn=bn),
        formula,
        x,
    )
