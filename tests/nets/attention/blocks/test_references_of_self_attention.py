"""Self-attention blocks: equality with timm, torchvision and Ultralytics, without the residual."""

import pytest
import torch
from references import Adapted, assert_equal, copy_weights, opened
from torch import nn

SIZES = ((2, 256, 4, 9), (1, 256, 13, 8))  # positions that four areas divide


def _copy_yolo(block, reference):
    for layer, reference_layer in zip(block, reference, strict=True):
        copy_weights((layer[0], reference_layer.conv), (layer[1], reference_layer.bn))


def _channels_first(layer, x):
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _attention_layers(block):
    return [block.qkv, block.pe, block.proj]


@pytest.mark.parametrize(("name", "area"), [("area", 1), ("area", 4), ("psa_yolo", 1)])
@pytest.mark.parametrize("with_mlp", [False, True])
def test_convolutional_attention(name, area, with_mlp):
    yolo = pytest.importorskip("ultralytics.nn.modules.block")
    if name == "area":
        block = opened("area", area=area, residual=with_mlp, mlp_ratio=1.2 * with_mlp)
        whole = yolo.ABlock(256, 8, area=area)
        reference = whole if with_mlp else whole.attn
    else:
        block = opened("psa_yolo", residual=with_mlp, mlp_ratio=2.0 * with_mlp)
        whole = yolo.PSABlock(256)
        reference = whole if with_mlp else whole.attn
    _copy_yolo(_attention_layers(block), [whole.attn.qkv, whole.attn.pe, whole.attn.proj])
    if with_mlp:
        _copy_yolo([block.mlp[0], block.mlp[2]], list(whole.children())[1])
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # Ultralytics sets it when it builds a whole model
    assert_equal(block.double(), reference.double(), SIZES, 1e-12)


def test_separable_attention():
    mobilevit = pytest.importorskip("timm.models.mobilevit")
    block = opened("mobilevit_v2", residual=False).double()
    reference = mobilevit.LinearSelfAttention(256).double()
    with torch.no_grad():  # packed as one channel of scores, the keys, the values
        for kind in ("weight", "bias"):
            parts = [getattr(layer, kind) for layer in (block.query, block.key, block.value)]
            getattr(reference.qkv_proj, kind).copy_(torch.cat(parts))
    copy_weights((block.out, reference.out_proj))

    one_patch = Adapted(reference, lambda layer, x: layer(x.flatten(2)[:, :, None]).view(x.shape))
    assert_equal(block, one_patch, tolerance=1e-12)


def test_outlook():
    volo = pytest.importorskip("timm.models.volo")
    block = opened("outlook", residual=False).double()
    reference = volo.OutlookAttention(256, 8).double()
    copy_weights((block.value, reference.v), (block.weights, reference.attn))
    copy_weights((block.out, reference.proj))
    assert_equal(block, Adapted(reference, _channels_first), tolerance=1e-12)


def test_halo():
    timm_halo = pytest.importorskip("timm.layers.halo_attn")
    block = opened("halo", mask=False, residual=False).double()
    reference = timm_halo.HaloAttn(256).double()
    copy_weights((block.query, reference.q), (block.key_value, reference.kv))
    with torch.no_grad():
        reference.pos_embed.height_rel.copy_(block.rows)
        reference.pos_embed.width_rel.copy_(block.columns)
    assert_equal(block, reference, ((2, 256, 8, 16), (1, 256, 24, 8)), 1e-12)


@pytest.mark.parametrize("shift", [0, 3])
def test_window(shift):
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    block = opened("window", shift=shift, mask=False, residual=False).double()
    reference = swin.ShiftedWindowAttention(256, [7, 7], [shift, shift], 8).double()
    copy_weights((block.qkv, reference.qkv), (block.out, reference.proj))
    with torch.no_grad():
        reference.relative_position_bias_table.copy_(block.table)

    sizes = ((2, 256, 13, 17), (1, 256, 14, 7), (1, 256, 5, 9))
    assert_equal(block, Adapted(reference, _channels_first), sizes, 1e-12)
