"""What docs/public_copies.md reports about other code does not hold for the blocks here."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nets import attention
from nets.attention.base import IdentityStart
from nets.attention.conformance import open_gates, random_features
from utils.core.errors import UserError

C = 32
TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parents[2] / "docs" / "public_copies.md"


def block(name, channels=C, **options):
    return open_gates(attention.build({"name": name, **options}, channels)).eval()


def test_every_line_of_the_page_names_its_test():
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    named = {re.findall(r"`(test_\w+)`", row)[-1] for row in rows}
    here = {name for name in globals() if name.startswith("test_")}
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert all(f"def {name}(" in tests for name in named)
    assert here - named == {"test_every_line_of_the_page_names_its_test"}
    assert {re.findall(r"`(\w+)`", row)[0] for row in rows} <= set(attention.names())


def test_shuffle_permutes_and_the_identity_start_hides_it():
    x = random_features(64)
    y = attention.build("shuffle", 64).eval()(x)
    gate = torch.tensor(1.0).sigmoid()
    for half in (0, 1):  # output 2 i + j is input i + j C / 2
        assert torch.allclose(y[:, half::2], gate * x[:, 32 * half : 32 * (half + 1)], atol=1e-6)
    wrapped = attention.build("shuffle", 64, "identity")
    assert isinstance(wrapped, IdentityStart) and torch.equal(wrapped(x), x)


def test_the_spatial_gate_of_polarized_is_constant_only_in_the_variant_of_the_code():
    torch.manual_seed(0)
    x, spread = random_features(64, 1, 26, 26), {}
    for variant in ("paper", "code"):
        gate = attention.build({"name": "polarized", "variant": variant}, 64).spatial(x)
        spread[variant] = (gate.max() - gate.min()).item()
    assert spread["code"] < 0.01 and spread["paper"] > 0.05


def test_halo_sees_the_map_and_not_the_padding():
    layer, x = block("halo", heads=1, block=3, halo=1, residual=False), random_features(C)
    y, value = layer(x), layer.key_value(x)[:, C:]
    for point in ((0, 0), (4, 8), (2, 4)):
        row = layer.attention(x, point)["query"]
        assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)
        attended = torch.einsum("bhw,bchw->bc", row, value)
        assert torch.allclose(y[:, :, point[0], point[1]], attended, atol=1e-4)
        seen = row[row > 0]
        assert seen.max() > 1.2 * seen.mean(), "not a plain average"


def test_the_shares_of_muse_stay_its_parameter():
    layer, x = block("muse").train(), random_features(C)
    shares, before = layer.shares, layer.shares.clone()
    for _ in range(3):
        layer(x)
    assert layer.shares is shares and torch.equal(shares, before)


def test_the_end_of_a_row_is_no_neighbor_of_the_next_in_muse():
    scale = block("muse").scales[2]
    x = torch.zeros(1, C, 3, 9)
    x[..., 0, 8] = 1
    changed = (scale(x) - scale(torch.zeros_like(x))).abs().amax((0, 1)) > 1e-6
    assert changed[0, 6:].all() and not changed[:, :4].any()


def test_both_branches_of_cot_have_a_say():
    layer = attention.build("cot", C).eval()
    mixed, key = layer.branches(random_features(C, 1, 26, 26))[0].unbind(1)
    assert mixed.abs().mean() > 0.1 * key.abs().mean()
    assert sum(part.numel() for part in attention.build("cot", 256).parameters()) == 417_248


def test_images_are_apart_and_positions_differ_in_a2():
    layer, x = block("a2", residual=False), random_features(C)
    y = layer(x)
    assert torch.allclose(y[:1], layer(x[:1]), atol=1e-5)
    assert (y - y.mean((2, 3), keepdim=True)).abs().max() > 1e-3


def test_psa_trains_all_its_branches_and_leaves_its_input():
    layer, x = block("psa").train(), random_features(C)
    assert sum(part.numel() for part in attention.build("psa", 256).parameters()) == 433_732
    before = x.clone()
    layer(x.requires_grad_() * 1).sum().backward()
    assert torch.equal(x.detach(), before)
    assert all(part.grad is not None for part in layer.parameters())


def test_aft_takes_large_keys_and_any_size():
    for mode in ("simple", "conv"):
        layer = block("aft", mode=mode)
        layer.qkv.bias.data[C : 2 * C] = 100.0
        assert layer(random_features(C)).isfinite().all()


@pytest.mark.parametrize("name", ["ufo", "sge", "simam", "srm"])
def test_zeros_and_single_positions_are_finite(name):
    layer = block(name)
    for x in (torch.zeros(1, C, 3, 4), random_features(C, 1, 1, 1)):
        assert layer(x).isfinite().all()
    if name == "ufo":
        assert (attention.build(name, C).gain == 1).all()


def test_new_gates_of_sge_are_those_of_the_authors():
    x = random_features(C)
    assert torch.allclose(attention.build("sge", C)(x), x * torch.tensor(1.0).sigmoid())


@pytest.mark.parametrize("name", ["bam", "clo", "area", "danet", "ela", "acmix"])
def test_any_size_and_width(name):
    channels = 40 if name in ("ela", "bam") else C
    for size in ((13, 13), (3, 3), (5, 9), (9, 5)):
        x = random_features(channels, 1, *size)
        assert block(name, channels)(x).shape == x.shape


def test_the_channel_gate_of_bam_sees_every_column():
    layer, x = block("bam"), random_features(C)
    layer.spatial[-1].weight.data.zero_()  # leaves the channel gate alone
    moved = torch.cat([x[..., :5], x[..., 5:] + 10], 3)
    assert not torch.allclose(layer.gate(moved), layer.gate(x), atol=1e-3)


def test_the_bias_of_acmix_stays_a_parameter():
    layer = attention.build({"name": "acmix", "bias": True}, C)
    assert dict(layer.named_parameters())["shared.conv.bias"].shape == (C,)


def test_ela_looks_at_neighbors():
    layer, x = block("ela"), random_features(C, 1, 16, 16)
    kernels = [part.kernel_size for part in layer.modules() if hasattr(part, "kernel_size")]
    assert kernels and all(max(sides) == 7 for sides in kernels)
    assert layer(x).isfinite().all()


def test_the_layers_of_cpca_can_be_apart():
    shared, apart = (attention.build({"name": "cpca", "shared": flag}, C) for flag in (True, False))
    counts = [sum(part.numel() for part in layer.parameters()) for layer in (shared, apart)]
    assert counts[1] - counts[0] == 2 * (C * C + C)


def test_kernels_that_lska_lacks_are_refused():
    with pytest.raises(UserError, match=r"lska\.kernel_size"):
        attention.build({"name": "lska", "kernel_size": 9}, C)


@pytest.mark.parametrize(("reference", "first"), [("paper", 0.0), ("code", 0.5)])
def test_the_grid_of_dat_lies_on_the_cells(reference, first):
    """Without offsets, the samples of the paper's grid are x itself."""
    layer = block("dat", stride=1, reference=reference, residual=False)
    torch.nn.init.zeros_(layer.offsets.out.weight)
    x = random_features(C, 1, 13, 13)
    seen = []
    layer.key.register_forward_pre_hook(lambda module, given: seen.extend(given))
    layer(x)
    sampled = seen[0].reshape(1, C, 13, 13)
    shifted = F.pad(x, (0, 1, 0, 1))
    corners = sum(shifted[..., i : i + 13, j : j + 13] for i in (0, 1) for j in (0, 1)) / 4
    expected = x if first == 0 else corners
    assert torch.allclose(sampled, expected, atol=1e-5)


def test_the_factor_of_cbam_is_at_most_one():
    x = random_features(C)
    factor = block("cbam")(x) / x
    assert factor.max() <= 1 + 1e-5


def test_the_norm_of_gct_counts_negative_features():
    layer = open_gates(attention.build({"name": "gct", "mode": "l1"}, C)).eval()
    x = random_features(C)
    assert torch.allclose(layer.attention(x)["channel"], layer.attention(-x)["channel"], atol=1e-6)


def test_the_factors_of_nam_learn():
    layer = block("nam").train()
    norm = next(part for part in layer.modules() if isinstance(part, torch.nn.BatchNorm2d))
    x = random_features(C, 4).double()
    layer.double()
    cut = norm.weight.detach().abs() / norm.weight.detach().abs().sum()
    normed = F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    other = x * (cut[:, None, None] * normed).sigmoid()
    weights = random_features(C, 4, seed=1).double()
    (gradient,) = torch.autograd.grad((layer(x) * weights).sum(), norm.weight)
    (without,) = torch.autograd.grad((other * weights).sum(), norm.weight)
    assert torch.allclose(layer(x), other) and not torch.allclose(gradient, without, rtol=1e-3)


def test_the_memories_of_external_are_two():
    storages = {part.untyped_storage().data_ptr() for part in block("external").parameters()}
    assert len(storages) == 2
