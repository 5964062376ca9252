"""Every block, with every option that changes what it computes, passes the conformance checks."""

import functools
import sys

import pytest
import torch

from nets import attention
from nets.attention.blocks.danet import channel_attention, channel_weights
from nets.attention.conformance import CHECKS, open_gates, random_features, relative_difference
from nets.attention.layers import dot_product_weights, scaled_dot_product

CHANNELS = 64
QUICKLY_COMPILED = ("cbam", "gc", "self_attention")
OPTIONS = [
    {"name": "se", "bias": True},
    {"name": "se_conv", "activation": "silu", "gate": "hardsigmoid"},
    {"name": "eca", "kernel_size": 7},
    {"name": "gc", "pool": "average"},
    {"name": "gc", "fusion": "mul"},
    {"name": "gc", "fusion": "both"},
    {"name": "gsop", "mode": "position", "dim": 16},
    {"name": "gsop", "mode": "both", "dim": 16, "pre_relu": False},
    {"name": "cbam", "norm": True, "kernel_size": 3},
    {"name": "bam", "combine": "product", "num_layers": 1},
    {"name": "ca", "bias": True, "activation": "hardswish", "min_channels": 8},
    {"name": "triplet", "spatial": False},
    {"name": "gct", "mode": "l1"},
    {"name": "lct", "groups": 64},
    {"name": "ge", "gather": "pool", "extent": 0, "mlp": True},
    {"name": "scse", "combine": "max"},
    {"name": "gam", "groups": 4, "kernel_size": 3},
    {"name": "sge", "groups": 16},
    {"name": "polarized", "mode": "sequential"},
    {"name": "polarized", "variant": "code"},
    {"name": "polarized", "mode": "sequential", "variant": "code"},
    {"name": "mlca", "local_weight": 1, "size": 3},
    {"name": "ela", "norm_groups": 64, "bias": True},
    {"name": "caa", "norm": False},
    {"name": "cpca", "projections": False},
    {"name": "lsk", "projections": True},
    {"name": "parnet", "bias": True},
    {"name": "cot", "kernel_size": 1, "share": 3},
    {"name": "stn", "transform": "attention", "mode": "blend", "padding_mode": "zeros"},
    {"name": "danet", "residual": "both"},
    {"name": "non_local", "mode": "gaussian"},
    {"name": "non_local", "mode": "dot_product", "sub_sample": False},
    {"name": "non_local", "mode": "concatenation"},
    {"name": "non_local", "bn": False, "inter": 5},
    {"name": "mhsa", "heads": 4, "bias": False, "residual": False},
    {"name": "emsa", "heads": 2, "transform": False},
    {"name": "emsa", "heads": 4, "sr_ratio": 3, "residual": False},
    {"name": "emsa", "heads": 4, "sr_ratio": 1, "qkv_bias": False},
    {"name": "ccnet", "recurrence": 1},
    {"name": "external", "projections": True, "residual": False},
    {"name": "a2", "c_m": 7, "c_n": 3, "residual": False},
    {"name": "sk", "kernels": [1, 3, 7], "dilated": False, "groups": 3},
    {"name": "psa", "kernels": [1, 5], "groups": [1, 3]},
    {"name": "split", "radix": 1},
    {"name": "split", "radix": 3, "groups": 2, "kernel_size": 5},
    {"name": "conv_control", "params": 40},
    {"name": "psa_yolo", "ratio": 1, "mlp_ratio": 0.5, "residual": False},
    {"name": "biformer", "windows": 3, "topk": 2, "kernel_size": 0, "residual": False},
    {"name": "dat", "groups": 2, "stride": 1, "offset_range": -1, "reference": "code"},
    {"name": "axial", "mode": "sequential", "heads": 4},
    {"name": "outlook", "kernel_size": 5, "heads": 4},
    {"name": "aft", "mode": "simple"},
    {"name": "clo", "local_heads": 0, "window": 3},
    {"name": "halo", "heads": 4, "block": 3, "halo": 2, "mask": False},
    {"name": "acmix", "heads": 2, "kernel_att": 3, "kernel_conv": 5, "bias": True},
    {"name": "window", "heads": 4, "window": 4, "shift": 2},
]


def _cases():
    for spec in [*attention.names(), *OPTIONS]:
        for check in CHECKS:
            if check == "compiles" and not isinstance(spec, str):
                continue  # exporting a block captures it, too
            slow = (check == "exports_to_onnx" and spec != "cbam") or (
                check == "compiles" and spec not in QUICKLY_COMPILED
            )
            name = f"{attention.describe(spec)}-{check}"
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(spec, check, id=name, marks=marks)


@functools.cache
def keep_torchlib() -> None:
    """Let all further exports share its operators: to parse them takes longer than a block."""
    for name, module in list(sys.modules.items()):
        if name.startswith("onnxscript._framework_apis.") and hasattr(module, "get_torchlib_ops"):
            module.get_torchlib_ops = functools.cache(module.get_torchlib_ops)


@pytest.mark.parametrize(("spec", "check"), list(_cases()))
def test_block(spec, check):
    if check == "exports_to_onnx":
        for needed in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(needed)
    CHECKS[check](lambda: attention.build(spec, CHANNELS), CHANNELS)
    if check == "exports_to_onnx":
        keep_torchlib()


# Parameters that a later step cancels: no block may excuse others.
CANCELLED = {
    "self_attention": {"attended.key.bias"},
    "pam": {"attended.key.bias"},
    "danet": {"position.key.bias"},
    "danet_head": {"position.3.attended.key.bias"},
    "ccnet": {"key.bias"},
    "non_local": {"phi.bias", "g.bias", "W.bias"},
    "a2": {"gather.bias"},
    "gc": {"mask.bias"},
    "gsop": {"channel.reduce.bias"},
    "bam": {"channel.0.bias", "spatial.0.bias", "spatial.3.bias", "spatial.6.bias"},
    "split": {"fc1.bias"},
    "area": {"pe.1.bias"},
    "psa_yolo": {"pe.1.bias"},
    "mobilevit_v2": {"query.bias"},
    "gam": {"spatial.0.bias", "spatial.3.bias"},
    "polarized": {"channel.query.bias"},
    "caa": {"layers.5.bias"},
    "cot": {"fuse.0.bias"},
    "dat": {"key.bias"},
    "acmix": {"position.bias"},
}


@pytest.mark.parametrize("name", attention.names())
def test_only_biases_that_are_cancelled_are_excused(name):
    assert set(attention.build(name, 64).zero_gradient) == CANCELLED.get(name, set())


def test_excused_parameters_of_options():
    excused = {
        attention.describe(spec): set(attention.build(spec, 256).zero_gradient) for spec in OPTIONS
    }
    assert excused["non_local(mode=gaussian)"] == {"g.bias", "W.bias"}
    assert excused["non_local(mode=dot_product, sub_sample=False)"] == {"W.bias"}
    assert excused["non_local(bn=False, inter=5)"] == {"phi.bias"}
    assert excused["external(projections=True, residual=False)"] == {"before.bias"}
    assert excused["ca(bias=True, activation=hardswish, min_channels=8)"] == {"conv_1x1.bias"}
    assert excused["emsa(heads=2, transform=False)"] == set()
    assert excused["polarized(variant=code)"] == excused["caa(norm=False)"] == set()
    assert excused["lct(groups=64)"] == set()
    assert attention.build({"name": "lct", "groups": 64}, 64).zero_gradient == ("norm.weight",)
    assert excused["emsa(heads=4, sr_ratio=3, residual=False)"] == {
        "kv.bias",
        "norm.bias",
        "mix.bias",
    }


@pytest.mark.parametrize("dimension", [1, 3])
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_non_local_on_sequences_and_videos(dimension, mode):
    for sides in [(5, 4, 3)[-dimension:], (1, 1, 1)[-dimension:], (2, 1, 7)[-dimension:]]:
        block = attention.build({"name": "non_local", "mode": mode, "dimension": dimension}, 8)
        x = torch.randn(2, 8, *sides)
        assert torch.equal(block(x), x)
        y = open_gates(block)(x)
        assert y.shape == x.shape and not torch.equal(y, x)
        assert block.attention(x)["query"].shape == (2, *sides)


@pytest.mark.parametrize(
    ("name", "norm"), [("bam", "channel.1"), ("sk", "fuse.1"), ("split", "bn1"), ("ca", "bn")]
)
def test_one_value_per_channel_uses_the_running_statistics_and_leaves_them(name, norm):
    block = open_gates(attention.build(name, 64)).train()
    layer = block.get_submodule(norm)
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    kept = {key: value.clone() for key, value in layer.state_dict().items()}
    side = (
        0 if name == "ca" else 4
    )  # ca normalizes H + W values, two on a 1 x 1 map: nothing to excuse
    block(torch.randn(1, 64, max(side, 1), max(side, 1)))
    changed = [
        key for key, value in layer.state_dict().items() if not torch.equal(value, kept[key])
    ]
    if name == "ca":
        assert changed == ["running_mean", "running_var", "num_batches_tracked"]
        return
    assert not changed
    (values, output), weight = seen[0], kept["weight"] / (kept["running_var"] + layer.eps).sqrt()
    expected = (values.flatten() - kept["running_mean"]) * weight + kept["bias"]
    assert torch.allclose(output.flatten(), expected, atol=1e-5)
    block(torch.randn(2, 64, 4, 4))
    assert int(layer.num_batches_tracked) == 1


@pytest.mark.parametrize(
    "name", ["cam", "self_attention", "gsop", "non_local", "simam", "gct", "srm", "sge"]
)
def test_large_features_do_not_overflow_under_autocast(name):
    block = open_gates(attention.build(name, 64)).eval()
    x = 300 * random_features(64, 1, 26, 26)
    with torch.autocast("cpu", torch.float16):
        assert block(x).isfinite().all()
        assert block(x.half()).isfinite().all()


def test_scores_and_covariances_stay_in_float32_under_autocast():
    query, key, value, x = (
        torch.randn(2, 1, 6, 8),
        torch.randn(2, 1, 9, 8),
        torch.randn(2, 1, 9, 4),
        random_features(16),
    )
    gsop = attention.build({"name": "gsop", "mode": "both"}, 16).eval()
    wide = [
        scaled_dot_product(query, key, value),
        dot_product_weights(query, key),
        channel_weights(x),
        channel_attention(x),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        same = [
            scaled_dot_product(query, key, value),
            dot_product_weights(query, key),
            channel_weights(x),
            channel_attention(x),
        ]
        covariances = [branch.covariance(x.bfloat16()) for branch in (gsop.channel, gsop.position)]
        row = attention.build("ccnet", 16).attention(x.bfloat16())["query"]
    for under_autocast, expected in zip(same, wide, strict=True):
        assert torch.equal(under_autocast, expected)
    assert all(covariance.dtype == torch.float32 for covariance in covariances)
    assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("axes", [3, 4])
def test_a_bias_is_added_to_the_scores_with_and_without_a_head_axis(axes):
    query, key, value = torch.randn(3, 2, 9, 4)
    bias = torch.randn(2, 9, 9)
    expected = (query @ key.mT + bias).softmax(-1) @ value
    if axes == 4:
        query, key, value, bias, expected = (
            one[:, None] for one in (query, key, value, bias, expected)
        )
    torch.testing.assert_close(scaled_dot_product(query, key, value, bias=bias), expected)


@pytest.mark.parametrize("name", attention.names())
def test_a_block_may_be_of_half_precision_throughout(name):
    block, x = attention.build(name, CHANNELS).eval(), random_features(CHANNELS)
    with torch.no_grad():
        expected, output = block(x), block.bfloat16()(x.bfloat16())
    assert output.dtype == torch.bfloat16
    assert relative_difference(output.float(), expected) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cbam", "self_attention", "ccnet"])
def test_generated_code_agrees(name):
    block, x = open_gates(attention.build(name, 32)).eval(), random_features(32)
    assert relative_difference(torch.compile(block, fullgraph=True)(x), block(x)) < 1e-5
