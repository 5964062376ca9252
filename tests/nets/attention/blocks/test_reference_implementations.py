"""Equality with the implementations in timm, torchvision and torch, after copying the weights."""

import pytest
import torch
from torch import nn

from nets import attention
from nets.attention.conformance import open_gates, relative_difference

timm_layers = pytest.importorskip("timm.layers")


def _copy(pairs):
    """Copy weights and statistics; linear maps and 1x1 convolutions differ in shape only."""
    with torch.no_grad():
        for layer, reference_layer in pairs:
            source, target = layer.state_dict(), reference_layer.state_dict()
            assert source.keys() == target.keys(), (source.keys(), target.keys())
            for key, value in target.items():
                assert value.numel() == source[key].numel()
                value.copy_(source[key].view(value.shape))


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _assert_equal(block, reference):
    assert _count(block) == _count(reference)
    block.eval(), reference.eval()
    for batch, height, width in ((2, 5, 9), (1, 13, 7)):
        x = torch.randn(batch, 256, height, width)
        with torch.no_grad():
            assert relative_difference(block(x), reference(x)) < 1e-5


def _block(name, **options):
    return open_gates(attention.build({"name": name, **options}, 256))


@pytest.mark.parametrize("bias", [False, True])
def test_se(bias):
    block, reference = (
        _block("se", bias=bias),
        timm_layers.SEModule(256, rd_ratio=1 / 16, bias=bias),
    )
    _copy([(block.fc[0], reference.fc1), (block.fc[2], reference.fc2)])
    _assert_equal(block, reference)


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("silu", nn.SiLU)])
@pytest.mark.parametrize(
    ("gate", "squash"), [("sigmoid", nn.Sigmoid), ("hardsigmoid", nn.Hardsigmoid)]
)
def test_se_conv(activation, layer, gate, squash):
    from torchvision.ops import SqueezeExcitation

    block = _block("se_conv", activation=activation, gate=gate)
    reference = SqueezeExcitation(256, 64, layer, squash)
    _copy([(block.fc1, reference.fc1), (block.fc2, reference.fc2)])
    _assert_equal(block, reference)


@pytest.mark.parametrize("kernel_size", [None, 3, 9])
def test_eca(kernel_size):
    block, reference = (
        _block("eca", kernel_size=kernel_size),
        timm_layers.EcaModule(None if kernel_size else 256, kernel_size),
    )
    _copy([(block.conv, reference.conv)])
    _assert_equal(block, reference)


@pytest.mark.parametrize("channels", [8, 64, 128, 512, 2048])
def test_eca_kernel_width_follows_the_channels(channels):
    assert (
        attention.build("eca", channels).conv.kernel_size
        == timm_layers.EcaModule(channels).conv.kernel_size
    )


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_cbam(kernel_size):
    from timm.layers.cbam import CbamModule

    block = _block("cbam", norm=True, kernel_size=kernel_size)
    reference = CbamModule(256, rd_ratio=1 / 8, spatial_kernel_size=kernel_size)
    channel, spatial = block.channelattention, block.spatialattention
    _copy([(channel.fc1, reference.channel.fc1), (channel.fc2, reference.channel.fc2)])
    _copy([(spatial.conv1, reference.spatial.conv.conv), (spatial.bn, reference.spatial.conv.bn)])
    _assert_equal(block, reference)


@pytest.mark.parametrize("fusion", ["add", "mul", "both"])
@pytest.mark.parametrize("pool", ["attention", "average"])
def test_gc(fusion, pool):
    block = _block("gc", fusion=fusion, pool=pool)
    reference = timm_layers.GlobalContext(
        256,
        use_attn=pool == "attention",
        fuse_add=fusion != "mul",
        fuse_scale=fusion != "add",
        rd_ratio=1 / 16,
    )
    if pool == "attention":
        _copy([(block.mask, reference.conv_attn)])
    for layer, reference_layer in (
        (block.add, reference.mlp_add),
        (block.mul, reference.mlp_scale),
    ):
        if layer is not None:
            _copy(
                [
                    (layer[0], reference_layer.fc1),
                    (layer[1], reference_layer.norm),
                    (layer[3], reference_layer.fc2),
                ]
            )
            reference_layer.norm.eps = layer[1].eps  # timm 1e-6, the authors' block and ours 1e-5
    _assert_equal(block, reference)


@pytest.mark.parametrize("activation", ["hardswish", "relu"])
def test_ca(activation):
    from timm.layers.coord_attn import CoordAttn

    block = _block("ca", activation=activation)
    reference = CoordAttn(
        256, rd_channels=16, act_layer=nn.Hardswish if activation == "hardswish" else nn.ReLU
    )
    _copy(
        [
            (block.conv_1x1, reference.conv1),
            (block.bn, reference.bn1),
            (block.F_h, reference.conv_h),
            (block.F_w, reference.conv_w),
        ]
    )
    _assert_equal(block, reference)


def test_non_local():
    block = _block("non_local", sub_sample=False)
    reference = timm_layers.NonLocalAttn(256, rd_channels=128, use_scale=False)
    _copy(
        [
            (block.theta, reference.t),
            (block.phi, reference.p),
            (block.g, reference.g),
            (block.W, reference.z),
            (block.bn, reference.norm),
        ]
    )
    _assert_equal(block, reference)


def test_sk():
    block = _block("sk")
    reference = timm_layers.SelectiveKernel(256, groups=32, split_input=False, rd_channels=32)
    for layer, reference_layer in zip(block.paths, reference.paths, strict=True):
        _copy([(layer[0], reference_layer.conv), (layer[1], reference_layer.bn)])
    _copy(
        [
            (block.fuse[0], reference.attn.fc_reduce),
            (block.fuse[1], reference.attn.bn),
            (block.select, reference.attn.fc_select),
        ]
    )
    _assert_equal(block, reference)


@pytest.mark.parametrize(("radix", "groups"), [(2, 1), (1, 1), (2, 2), (1, 2)])
def test_split(radix, groups):
    block = _block("split", radix=radix, groups=groups)
    reference = timm_layers.SplitAttn(256, radix=radix, groups=groups, norm_layer=nn.BatchNorm2d)
    _copy(
        [
            (getattr(block, name), getattr(reference, name))
            for name in ("conv", "bn0", "fc1", "bn1", "fc2")
        ]
    )
    _assert_equal(block, reference)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads", [1, 8])
def test_mhsa(heads, bias):
    block = _block("mhsa", heads=heads, bias=bias)
    reference = nn.MultiheadAttention(256, heads, bias=bias, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(block.qkv.weight)
        if bias:
            reference.in_proj_bias.copy_(block.qkv.bias)
    _copy([(block.out, reference.out_proj)])
    block.eval(), reference.eval()
    for batch, height, width in ((2, 5, 9), (1, 13, 7)):
        x = torch.randn(batch, 256, height, width)
        tokens = x.flatten(2).transpose(1, 2)
        expected = (
            reference(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, (height, width))
        )
        assert relative_difference(block(x), x + expected) < 1e-5
