"""Gates, branches and warps against their papers' formulas, written as loops in float64."""

import math

import pytest
import torch
from loops import C, H, W, assert_equal, columns_through, features, normalized, opened, softmax
from torch.nn import functional as F

from nets import attention


def _covariance_gate(branch, z, position):
    """Covariance of the centered rows of z (rows, samples) through norm, row convolution, 1x1."""
    z = torch.stack([row - row.mean() for row in z])
    count, samples = z.shape
    covariance = torch.tensor(
        [[(a @ b).item() / samples for b in z] for a in z], dtype=torch.float64
    )
    rows = normalized(branch.row_norm, covariance)
    expand = branch.row.out_channels // count
    out = [
        branch.row.weight[o, 0, :, 0] @ rows[o // expand] + branch.row.bias[o]
        for o in range(count * expand)
    ]
    hidden = torch.stack(out)
    return columns_through(branch.expand, (F.relu(hidden) if position else hidden)[:, None])[
        :, 0
    ].sigmoid()


def test_gsop_channel():
    def formula(block, x):
        branch = block.channel
        z = F.relu(normalized(branch.norm, columns_through(branch.reduce, F.relu(x.flatten(1)))))
        return x * _covariance_gate(branch, z, False)[:, None, None]

    assert_equal(opened("gsop", dim=5, expand=2), formula, features())


@pytest.mark.parametrize("size", [(8, 16), (16, 8)])
def test_gsop_position(size):
    def formula(block, x):
        branch, (height, width) = block.position, (size[0] // 8, size[1] // 8)
        z = F.relu(
            normalized(branch.norm, columns_through(branch.reduce, F.relu(x.flatten(1))))
        ).view(-1, *size)
        cells = [
            z[:, height * r : height * (r + 1), width * c : width * (c + 1)].mean((1, 2))
            for r in range(8)
            for c in range(8)
        ]
        gate = _covariance_gate(branch, torch.stack(cells), True).view(8, 8)
        return x * gate.repeat_interleave(height, 0).repeat_interleave(width, 1)

    assert_equal(opened("gsop", dim=5, mode="position"), formula, features(C, *size))


def test_gsop_constant_map_has_no_covariance():
    block = opened("gsop", dim=128, mode="both")
    x = torch.full((1, C, 8, 8), 3.0, dtype=torch.float64)
    assert block.channel.covariance(x).abs().max() < 1e-12
    same = block.position.covariance(x)[
        0
    ]  # all positions are alike, so all entries are one variance
    assert torch.allclose(same, same[0, 0].expand_as(same)) and same[0, 0] > 0


def test_triplet():
    def formula(block, x):
        total = torch.zeros_like(x)
        planes = {
            0: x,
            1: x.permute(1, 0, 2),
            2: x.permute(2, 1, 0),
        }  # (pooled axis first): C; H; W over (H, C)
        for layers, axis in zip(block.gates, (1, 2, 0), strict=True):
            pooled = torch.stack([planes[axis].max(0).values, planes[axis].mean(0)])
            gate = F.conv2d(pooled[None], layers[0].weight, padding=3)[0]
            gate = normalized(layers[1], gate)[0].sigmoid()
            for c in range(C):
                for h in range(H):
                    for w in range(W):
                        total[c, h, w] += x[c, h, w] * gate[{0: (h, w), 1: (c, w), 2: (h, c)}[axis]]
        return total / 3

    assert_equal(opened("triplet"), formula, features())


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_bam(combine):
    def formula(block, x):
        hidden = F.relu(
            normalized(block.channel[1], columns_through(block.channel[0], x.mean((1, 2))[:, None]))
        )
        channel = columns_through(block.channel[3], hidden)[:, 0]
        spatial = F.relu(
            normalized(block.spatial[1], columns_through(block.spatial[0], x.flatten(1)))
        ).view(-1, H, W)
        for layer in (3, 6):
            conv = block.spatial[layer]
            wide = F.pad(spatial, [4] * 4)
            out = torch.zeros(conv.out_channels, H, W, dtype=torch.float64)
            for h in range(H):
                for w in range(W):
                    window = wide[:, h : h + 9 : 4, w : w + 9 : 4]
                    out[:, h, w] = (conv.weight * window).sum((1, 2, 3)) + conv.bias
            spatial = F.relu(normalized(block.spatial[layer + 1], out))
        spatial = columns_through(block.spatial[9], spatial.flatten(1)).view(1, H, W)
        both = (
            channel[:, None, None] * spatial
            if combine == "product"
            else channel[:, None, None] + spatial
        )
        return x * (1 + both.sigmoid())

    assert_equal(opened("bam", reduction=2, combine=combine), formula, features())


def test_psa():
    def formula(block, x):
        features = [
            F.conv2d(x[None], conv.weight, None, 1, conv.padding, 1, conv.groups)[0]
            for conv in block.convs
        ]
        excited = []
        for feature in features:
            hidden = F.relu(columns_through(block.se[0], feature.mean((1, 2))[:, None]))
            excited.append(columns_through(block.se[2], hidden)[:, 0].sigmoid())
        out = []
        for branch, feature in enumerate(features):
            for channel in range(len(feature)):
                weights = softmax([gates[channel].item() for gates in excited])
                out.append(weights[branch] * feature[channel])
        return torch.stack(out)

    block = opened("psa", 32)
    assert [conv.groups for conv in block.convs] == [1, 4, 8, 8]  # 16 does not divide the 8 outputs
    assert_equal(block, formula, features(32))


def _bilinear(x, row, column, padding):
    """Value (C,) at fractional pixel coordinates, pixel centers at integers."""
    height, width = x.shape[1:]
    if padding == "border":
        row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    total, top, left = torch.zeros(len(x), dtype=x.dtype), math.floor(row), math.floor(column)
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < height and 0 <= c < width:
                total = total + (1 - abs(row - r)) * (1 - abs(column - c)) * x[:, r, c]
    return total


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("mode", ["replace", "blend"])
@pytest.mark.parametrize("transform", ["affine", "attention"])
def test_stn_with_a_fixed_theta(transform, mode, padding_mode):
    numbers = [0.8, 0.3, -0.2, -0.1, 1.1, 0.4] if transform == "affine" else [0.7, -0.2, 0.4]
    theta = [numbers[:3], numbers[3:]] if transform == "affine" else [[0.7, 0, -0.2], [0, 0.7, 0.4]]
    block = attention.build(
        {"name": "stn", "transform": transform, "mode": mode, "padding_mode": padding_mode}, C
    )
    block = block.double().eval()
    block.regress[2].bias.data = torch.tensor(numbers, dtype=torch.float64)
    gate = 1.0
    if mode == "blend":
        block.blend.data.fill_(0.3)
        gate = 0.3

    def formula(_, x):
        warped = torch.zeros_like(x)
        for h in range(H):
            for w in range(W):
                position = ((2 * w + 1) / W - 1, (2 * h + 1) / H - 1, 1)
                u, v = (sum(a * b for a, b in zip(row, position, strict=True)) for row in theta)
                warped[:, h, w] = _bilinear(
                    x, ((v + 1) * H - 1) / 2, ((u + 1) * W - 1) / 2, padding_mode
                )
        return x + gate * (warped - x)

    assert_equal(block, formula, features())


def test_basic_block():
    def formula(block, x):
        def conv(layer, norm, features):
            return normalized(norm, F.conv2d(features[None], layer.weight, padding=1)[0])

        hidden = conv(block.conv2, block.bn2, F.relu(conv(block.conv1, block.bn1, x)))
        channel, spatial = block.cbam.channelattention, block.cbam.spatialattention
        pooled = [hidden.mean((1, 2))[:, None], hidden.flatten(1).max(1).values[:, None]]
        scores = sum(
            columns_through(channel.fc2, F.relu(columns_through(channel.fc1, p))) for p in pooled
        )
        hidden = hidden * scores.sigmoid()[:, :, None]
        planes = torch.stack([hidden.mean(0), hidden.max(0).values])
        gate = F.conv2d(planes[None], spatial.conv1.weight, padding=3)[0].sigmoid()
        return F.relu(x + hidden * gate)

    assert_equal(opened("basic_block"), formula, features())
