"""Numerical equality with independent implementations: timm, torchvision and torch, weights copied module by module."""

import pytest
import torch
from torch import nn

from nets import attention
from nets.attention.conformance import difference, neutral_gates_opened

timm_layers = pytest.importorskip("timm.layers")


def _copy(pairs):
    """Ours -> theirs, by shape-preserving views (Linear <-> 1x1 convolution); norms with their statistics."""
    with torch.no_grad():
        for ours, theirs in pairs:
            mine, other = ours.state_dict(), theirs.state_dict()
            assert mine.keys() == other.keys(), (mine.keys(), other.keys())
            for key, value in other.items():
                assert value.numel() == mine[key].numel()
                value.copy_(mine[key].view(value.shape))


def _assert_equal(ours, theirs, sizes=((2, 5, 9), (1, 13, 7), (1, 26, 26)), channels=256):
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.eval(), theirs.eval()
    for batch, height, width in sizes:
        x = torch.randn(batch, channels, height, width)
        with torch.no_grad():
            assert difference(ours(x), theirs(x)) < 1e-5


def _ours(name, **options):
    return neutral_gates_opened(attention.build({"name": name, **options}, 256))


@pytest.mark.parametrize("bias", [False, True])
def test_se(bias):
    ours, theirs = _ours("se", bias=bias), timm_layers.SEModule(256, rd_ratio=1 / 16, bias=bias)
    _copy([(ours.fc[0], theirs.fc1), (ours.fc[2], theirs.fc2)])
    _assert_equal(ours, theirs)


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("silu", nn.SiLU)])
@pytest.mark.parametrize(
    ("gate", "squash"), [("sigmoid", nn.Sigmoid), ("hardsigmoid", nn.Hardsigmoid)]
)
def test_se_conv(activation, layer, gate, squash):
    from torchvision.ops import SqueezeExcitation

    ours = _ours("se_conv", activation=activation, gate=gate)
    theirs = SqueezeExcitation(256, 64, layer, squash)
    _copy([(ours.fc1, theirs.fc1), (ours.fc2, theirs.fc2)])
    _assert_equal(ours, theirs)


@pytest.mark.parametrize("kernel_size", [None, 3, 9])
def test_eca(kernel_size):
    ours, theirs = (
        _ours("eca", kernel_size=kernel_size),
        timm_layers.EcaModule(None if kernel_size else 256, kernel_size),
    )
    _copy([(ours.conv, theirs.conv)])
    _assert_equal(ours, theirs)


@pytest.mark.parametrize("channels", [8, 64, 128, 512, 2048])
def test_eca_kernel_width_follows_the_channels(channels):
    assert (
        attention.build("eca", channels).conv.kernel_size
        == timm_layers.EcaModule(channels).conv.kernel_size
    )


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_cbam(kernel_size):
    from timm.layers.cbam import CbamModule

    ours = _ours("cbam", norm=True, kernel_size=kernel_size)
    theirs = CbamModule(256, rd_ratio=1 / 8, spatial_kernel_size=kernel_size)
    channel, spatial = ours.channelattention, ours.spatialattention
    _copy([(channel.fc1, theirs.channel.fc1), (channel.fc2, theirs.channel.fc2)])
    _copy([(spatial.conv1, theirs.spatial.conv.conv), (spatial.bn, theirs.spatial.conv.bn)])
    _assert_equal(ours, theirs)


@pytest.mark.parametrize("fusion", ["add", "mul", "both"])
@pytest.mark.parametrize("pool", ["attention", "average"])
def test_gc(fusion, pool):
    ours = _ours("gc", fusion=fusion, pool=pool)
    theirs = timm_layers.GlobalContext(
        256,
        use_attn=pool == "attention",
        fuse_add=fusion != "mul",
        fuse_scale=fusion != "add",
        rd_ratio=1 / 16,
    )
    if pool == "attention":
        _copy([(ours.mask, theirs.conv_attn)])
    for mine, other in ((ours.add, theirs.mlp_add), (ours.mul, theirs.mlp_scale)):
        if mine is not None:
            _copy([(mine[0], other.fc1), (mine[1], other.norm), (mine[3], other.fc2)])
            other.norm.eps = mine[1].eps  # timm 1e-6, the authors' block and ours 1e-5
    _assert_equal(ours, theirs)


@pytest.mark.parametrize("activation", ["hardswish", "relu"])
def test_ca(activation):
    from timm.layers.coord_attn import CoordAttn

    ours = _ours("ca", activation=activation)
    theirs = CoordAttn(
        256, rd_channels=16, act_layer=nn.Hardswish if activation == "hardswish" else nn.ReLU
    )
    _copy(
        [
            (ours.conv_1x1, theirs.conv1),
            (ours.bn, theirs.bn1),
            (ours.F_h, theirs.conv_h),
            (ours.F_w, theirs.conv_w),
        ]
    )
    _assert_equal(ours, theirs)


def test_non_local():
    ours = _ours("non_local", sub_sample=False)
    theirs = timm_layers.NonLocalAttn(256, rd_channels=128, use_scale=False)
    _copy(
        [
            (ours.theta, theirs.t),
            (ours.phi, theirs.p),
            (ours.g, theirs.g),
            (ours.W, theirs.z),
            (ours.bn, theirs.norm),
        ]
    )
    _assert_equal(ours, theirs)


def test_sk():
    ours = _ours("sk")
    theirs = timm_layers.SelectiveKernel(256, groups=32, split_input=False, rd_channels=32)
    for mine, other in zip(ours.paths, theirs.paths, strict=True):
        _copy([(mine[0], other.conv), (mine[1], other.bn)])
    _copy(
        [
            (ours.fuse[0], theirs.attn.fc_reduce),
            (ours.fuse[1], theirs.attn.bn),
            (ours.select, theirs.attn.fc_select),
        ]
    )
    _assert_equal(ours, theirs)


@pytest.mark.parametrize(("radix", "groups"), [(2, 1), (1, 1), (2, 2), (1, 2)])
def test_split(radix, groups):
    ours = _ours("split", radix=radix, groups=groups)
    theirs = timm_layers.SplitAttn(256, radix=radix, groups=groups, norm_layer=nn.BatchNorm2d)
    _copy(
        [
            (getattr(ours, name), getattr(theirs, name))
            for name in ("conv", "bn0", "fc1", "bn1", "fc2")
        ]
    )
    _assert_equal(ours, theirs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads", [1, 8])
def test_mhsa(heads, bias):
    ours = _ours("mhsa", heads=heads, bias=bias)
    theirs = nn.MultiheadAttention(256, heads, bias=bias, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        if bias:
            theirs.in_proj_bias.copy_(ours.qkv.bias)
    _copy([(ours.out, theirs.out_proj)])
    ours.eval(), theirs.eval()
    for batch, height, width in ((2, 5, 9), (1, 13, 7)):
        x = torch.randn(batch, 256, height, width)
        tokens = x.flatten(2).transpose(1, 2)
        expected = theirs(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, (height, width))
        assert difference(ours(x), x + expected) < 1e-5
