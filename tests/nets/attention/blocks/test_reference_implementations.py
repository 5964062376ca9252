"""Equality with the implementations in timm, torchvision and torch, after copying the weights."""

import pytest
import torch
from references import assert_equal, copy_weights, opened
from torch import nn

from nets import attention
from nets.attention.conformance import relative_difference

timm_layers = pytest.importorskip("timm.layers")


@pytest.mark.parametrize("bias", [False, True])
def test_se(bias):
    block, reference = (
        opened("se", bias=bias),
        timm_layers.SEModule(256, rd_ratio=1 / 16, bias=bias),
    )
    copy_weights((block.fc[0], reference.fc1), (block.fc[2], reference.fc2))
    assert_equal(block, reference)


def test_ese():
    block, reference = opened("ese"), timm_layers.EffectiveSEModule(256)
    copy_weights((block.fc, reference.fc))
    assert_equal(block, reference)


@pytest.mark.parametrize("extent", [0, 2, 8])
def test_ge(extent):
    """Without parameters; timm cannot build the others."""
    block = opened("ge", extent=extent, gather="pool")
    assert_equal(block, timm_layers.GatherExcite(256, extent=extent, use_mlp=False))


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("silu", nn.SiLU)])
@pytest.mark.parametrize(
    ("gate", "squash"), [("sigmoid", nn.Sigmoid), ("hardsigmoid", nn.Hardsigmoid)]
)
def test_se_conv(activation, layer, gate, squash):
    from torchvision.ops import SqueezeExcitation

    block = opened("se_conv", activation=activation, gate=gate)
    reference = SqueezeExcitation(256, 64, layer, squash)
    copy_weights((block.fc1, reference.fc1), (block.fc2, reference.fc2))
    assert_equal(block, reference)


@pytest.mark.parametrize("kernel_size", [None, 3, 9])
def test_eca(kernel_size):
    block, reference = (
        opened("eca", kernel_size=kernel_size),
        timm_layers.EcaModule(None if kernel_size else 256, kernel_size),
    )
    copy_weights((block.conv, reference.conv))
    assert_equal(block, reference)


@pytest.mark.parametrize("channels", [8, 64, 128, 512, 2048])
def test_eca_kernel_width_follows_the_channels(channels):
    assert (
        attention.build("eca", channels).conv.kernel_size
        == timm_layers.EcaModule(channels).conv.kernel_size
    )


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_cbam(kernel_size):
    from timm.layers.cbam import CbamModule

    block = opened("cbam", norm=True, kernel_size=kernel_size)
    reference = CbamModule(256, rd_ratio=1 / 8, spatial_kernel_size=kernel_size)
    channel, spatial = block.channelattention, block.spatialattention
    copy_weights((channel.fc1, reference.channel.fc1), (channel.fc2, reference.channel.fc2))
    copy_weights(
        (spatial.conv1, reference.spatial.conv.conv), (spatial.bn, reference.spatial.conv.bn)
    )
    assert_equal(block, reference)


@pytest.mark.parametrize("fusion", ["add", "mul", "both"])
@pytest.mark.parametrize("pool", ["attention", "average"])
def test_gc(fusion, pool):
    block = opened("gc", fusion=fusion, pool=pool)
    reference = timm_layers.GlobalContext(
        256,
        use_attn=pool == "attention",
        fuse_add=fusion != "mul",
        fuse_scale=fusion != "add",
        rd_ratio=1 / 16,
    )
    if pool == "attention":
        copy_weights((block.mask, reference.conv_attn))
    for layer, reference_layer in (
        (block.add, reference.mlp_add),
        (block.mul, reference.mlp_scale),
    ):
        if layer is not None:
            copy_weights(
                (layer[0], reference_layer.fc1),
                (layer[1], reference_layer.norm),
                (layer[3], reference_layer.fc2),
            )
            reference_layer.norm.eps = layer[1].eps  # timm 1e-6, the authors' block and ours 1e-5
    assert_equal(block, reference)


@pytest.mark.parametrize("activation", ["hardswish", "relu"])
def test_ca(activation):
    from timm.layers.coord_attn import CoordAttn

    block = opened("ca", activation=activation)
    reference = CoordAttn(
        256, rd_channels=16, act_layer=nn.Hardswish if activation == "hardswish" else nn.ReLU
    )
    copy_weights(
        (block.conv_1x1, reference.conv1),
        (block.bn, reference.bn1),
        (block.F_h, reference.conv_h),
        (block.F_w, reference.conv_w),
    )
    assert_equal(block, reference)


def test_non_local():
    block = opened("non_local", sub_sample=False)
    reference = timm_layers.NonLocalAttn(256, rd_channels=128, use_scale=False)
    copy_weights(
        (block.theta, reference.t),
        (block.phi, reference.p),
        (block.g, reference.g),
        (block.W, reference.z),
        (block.bn, reference.norm),
    )
    assert_equal(block, reference)


def test_sk():
    block = opened("sk")
    reference = timm_layers.SelectiveKernel(256, groups=32, split_input=False, rd_channels=32)
    for layer, reference_layer in zip(block.paths, reference.paths, strict=True):
        copy_weights((layer[0], reference_layer.conv), (layer[1], reference_layer.bn))
    copy_weights(
        (block.fuse[0], reference.attn.fc_reduce),
        (block.fuse[1], reference.attn.bn),
        (block.select, reference.attn.fc_select),
    )
    assert_equal(block, reference)


@pytest.mark.parametrize(("radix", "groups"), [(2, 1), (1, 1), (2, 2), (1, 2)])
def test_split(radix, groups):
    block = opened("split", radix=radix, groups=groups)
    reference = timm_layers.SplitAttn(256, radix=radix, groups=groups, norm_layer=nn.BatchNorm2d)
    copy_weights(
        *(
            (getattr(block, name), getattr(reference, name))
            for name in ("conv", "bn0", "fc1", "bn1", "fc2")
        )
    )
    assert_equal(block, reference)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads", [1, 8])
def test_mhsa(heads, bias):
    block = opened("mhsa", heads=heads, bias=bias)
    reference = nn.MultiheadAttention(256, heads, bias=bias, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(block.qkv.weight)
        if bias:
            reference.in_proj_bias.copy_(block.qkv.bias)
    copy_weights((block.out, reference.out_proj))
    block.eval(), reference.eval()
    for batch, height, width in ((2, 5, 9), (1, 13, 7)):
        x = torch.randn(batch, 256, height, width)
        tokens = x.flatten(2).transpose(1, 2)
        expected = (
            reference(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, (height, width))
        )
        assert relative_difference(block(x), x + expected) < 1e-5
