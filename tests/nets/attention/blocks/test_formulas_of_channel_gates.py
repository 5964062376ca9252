"""Channel gates against their papers' formulas, written as loops in float64."""

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
    convolved,
    features,
    mlp,
    normalized,
    opened,
    pointwise,
    standardized,
)

from nets import attention
from nets.attention.blocks.fca import SELECTIONS


@pytest.mark.parametrize("mode", ["l2", "l1"])
def test_gct(mode):
    def formula(block, x):
        alpha = block.alpha.detach()
        if mode == "l2":
            sizes = [alpha[c] * math.sqrt((x[c] ** 2).sum() + 1e-5) for c in range(C)]
            norm = math.sqrt(sum(size**2 for size in sizes) / C + 1e-5)
        else:
            sizes = [alpha[c] * x[c].abs().sum() for c in range(C)]
            norm = sum(abs(size) for size in sizes) / C + 1e-5
        scores = [block.gamma[c] * sizes[c] / norm + block.beta[c] for c in range(C)]
        return torch.stack([x[c] * (1 + scores[c].tanh()) for c in range(C)])

    assert_equal(opened("gct", mode=mode), formula, features())


def test_srm():
    def formula(block, x):
        styles = []
        for c, channel in enumerate(x):
            mean = channel.sum() / N
            deviation = math.sqrt(((channel - mean) ** 2).sum() / (N - 1) + 1e-5)
            styles.append(block.mean_weight[c] * mean + block.deviation_weight[c] * deviation)
        return x * normalized(block.bn, torch.stack(styles)).sigmoid()[:, None, None]

    assert_equal(opened("srm"), formula, features())


def test_lct():
    def formula(block, x):
        means = x.mean((1, 2))
        normed = torch.cat([standardized(group, 1e-5) for group in means.split(4)])
        return x * (block.norm.weight * normed + block.norm.bias).sigmoid()[:, None, None]

    assert_equal(opened("lct", groups=2), formula, features())


def test_nam():
    def formula(block, x):
        total = sum(abs(scale) for scale in block.bn.weight)
        shares = block.bn.weight.abs()[:, None, None] / total
        return x * (shares * normalized(block.bn, x)).sigmoid()

    assert_equal(opened("nam"), formula, features())


@pytest.mark.parametrize(
    ("size", "selection", "count"), [(7, "top", 16), (14, "low", 8), (7, "low", 1)]
)
def test_fca(size, selection, count, monkeypatch):
    channels = 32

    def cosine(frequency, i):
        wave = math.cos(math.pi * frequency * (i + 0.5) / size) / math.sqrt(size)
        return wave * math.sqrt(2) if frequency else wave

    def formula(block, x):
        pooled = adaptive_pooled(x, size, size)
        z = torch.zeros(channels, dtype=x.dtype)
        for c in range(channels):
            pair = SELECTIONS[selection].split()[c * count // channels]
            u, v = (int(digit) * (size // 7) for digit in pair)
            for i in range(size):
                row = [cosine(v, j) for j in range(size)]
                z[c] += cosine(u, i) * (pooled[c, i] @ torch.tensor(row, dtype=x.dtype))
        return x * mlp(block.fc, z).sigmoid()[:, None, None]

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of the basis
    try:
        block = opened("fca", channels, size=size, selection=selection, frequencies=count)
    finally:
        torch.set_default_dtype(previous)
    assert_equal(block, formula, features(channels, 5, 9))


def test_the_frequencies_of_fca_are_32_different_ones():
    for pairs in SELECTIONS.values():
        assert len(set(pairs.split())) == 32
        assert set("".join(pairs.split())) <= set("0123456")


@pytest.mark.parametrize("size", [(H, W), (5, 9)])
def test_ge_with_convolutions(size):
    """Extent 4: two convolutions; cells of the coarse grid are copied to the nearest positions."""

    def formula(block, x):
        first, norm, _, second, last = block.gather
        coarse = normalized(norm, convolved(first, x, stride=2)).relu()
        coarse = normalized(last, convolved(second, coarse, stride=2))
        rows, columns = coarse.shape[1:]
        gate = pointwise(block.mlp[2], pointwise(block.mlp[0], coarse).relu()).sigmoid()
        y = torch.zeros_like(x)
        for h in range(size[0]):
            for w in range(size[1]):
                y[:, h, w] = x[:, h, w] * gate[:, h * rows // size[0], w * columns // size[1]]
        return y

    block = opened("ge", extent=4, mlp=True, reduction=2)
    assert_equal(block, formula, 10 * features(C, *size))  # the ReLU sees both signs


def test_ge_of_the_whole_map_is_se_with_biases():
    block = opened("ge", extent=0, gather="pool", mlp=True, reduction=2)

    def formula(_, x):
        return x * mlp(block.mlp, x.mean((1, 2))).sigmoid()[:, None, None]

    assert_equal(block, formula, features())


@pytest.mark.parametrize("combine", ["add", "max"])
def test_scse(combine):
    def formula(block, x):
        channel = mlp(block.channel, x.mean((1, 2))).sigmoid()
        y = torch.zeros_like(x)
        for h in range(H):
            for w in range(W):
                score = block.spatial.weight.flatten() @ x[:, h, w] + block.spatial.bias
                both = [x[:, h, w] * channel, x[:, h, w] * score.sigmoid()]
                y[:, h, w] = both[0] + both[1] if combine == "add" else torch.maximum(*both)
        return y

    assert_equal(opened("scse", reduction=2, combine=combine), formula, features())


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [("lct", 16, {}), ("ela", 16, {}), ("shuffle", 2, {}), ("ema", 3, {})],
)
def test_a_group_norm_of_one_value_gives_its_bias(name, channels, options):
    """PyTorch raises for one image, and not for two, which must agree."""
    block = opened(name, channels, **options)
    pair = features(channels, 1, 1)
    with torch.no_grad():
        assert torch.allclose(torch.cat([block(image) for image in pair.split(1)]), block(pair))
    assert attention.build(name, channels).train()(pair.float()).isfinite().all()
