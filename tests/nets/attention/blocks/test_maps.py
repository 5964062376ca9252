"""The maps that `attention` returns are those that the forward pass uses."""

import pytest
import torch

from nets import attention
from nets.attention.conformance import open_gates, random_features

C, H, W = 64, 5, 9
SHAPES = {"channel": (2, C), "spatial": (2, H, W), "query": (2, H, W), "displacement": (2, H, W)}
KEYS = {
    "channel": "se se_conv eca cam ese gct srm fca lct parnet",
    "spatial": "gc conv_control mobilevit_v2 sge ema",
    "channel spatial": "cbam bam ca triplet basic_block nam ge scse simam gam shuffle polarized "
    "mlca ela caa cpca lka lska lsk strip",
    "query": "self_attention pam non_local mhsa emsa ccnet external a2 danet_head "
    "area psa_yolo window biformer axial outlook aft ufo halo acmix",
    "query spatial": "clo",
    "query branch": "muse",
    "query channel": "danet",
    "branch": "sk psa split cot",
    "displacement": "stn",
    "displacement samples": "dat",
}
EXPECTED = {name: set(keys.split()) for keys, names in KEYS.items() for name in names.split()} | {
    "gsop": {"channel"}
}
POINTS = [(0, 0), (4, 8), (2, 3)]


def _block(name, **options):
    return open_gates(attention.build({"name": name, **options}, C)).eval()


@pytest.mark.parametrize("name", attention.names())
def test_keys_and_shapes(name):
    maps = _block(name).attention(random_features(C))
    assert maps and set(maps) == EXPECTED.get(name, set(maps))
    for key, value in maps.items():
        if key in ("branch", "samples"):
            assert value.ndim == 3 and value.shape[0] == 2
        else:
            assert value.shape == SHAPES[key]
        assert value.isfinite().all()


@pytest.mark.parametrize("name", ["se", "se_conv", "eca", "ese", "gct", "srm", "fca", "lct"])
def test_channel_gates_are_the_factor_of_the_output(name):
    block, x = _block(name), random_features(C)
    assert torch.allclose(block(x), x * block.attention(x)["channel"][:, :, None, None], atol=1e-6)


def test_gates_of_cbam_are_the_factor_of_the_output():
    block, x = _block("cbam"), random_features(C)
    maps = block.attention(x)
    assert torch.allclose(
        block(x), x * maps["channel"][:, :, None, None] * maps["spatial"][:, None], atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    ["bam", "ca", "triplet", "nam", "ge", "simam", "gam", "mlca", "ela", "caa", "strip"],
)
def test_joint_gates_are_means_of_the_factor_of_the_output(name):
    block, x = _block(name), random_features(C)
    factor, maps = block(x) / x, block.attention(x)
    assert torch.allclose(factor.mean(1), maps["spatial"], atol=1e-4)
    assert torch.allclose(factor.mean((2, 3)), maps["channel"], atol=1e-4)


@pytest.mark.parametrize("name", ["sge", "ema", "lka", "lska", "lsk"])
def test_spatial_maps_are_mean_sizes_of_the_factor_of_the_output(name):
    block, x = _block(name), random_features(C)
    factor = (block(x) / x).abs().mean(1)
    assert torch.allclose(factor, block.attention(x)["spatial"], rtol=1e-3)


def test_gates_of_shuffle_are_those_of_the_input():
    block, x = _block("shuffle"), random_features(C)
    halves = block(x).unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)  # undo the shuffle
    assert torch.allclose((halves / x).mean(1), block.attention(x)["spatial"], atol=1e-4)


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_gates_of_polarized_are_the_factors_of_the_output(mode):
    block, x = _block("polarized", mode=mode), random_features(C)
    maps = block.attention(x)
    channel, spatial = maps["channel"][:, :, None, None], maps["spatial"][:, None]
    factor = channel + spatial if mode == "parallel" else channel * spatial
    assert torch.allclose(block(x), x * factor, atol=1e-5)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["self_attention", "pam"])
def test_a_query_row_gives_the_output_at_its_point(name, point):
    block, x = _block(name), random_features(C)
    row = block.attention(x, point)["query"]
    assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)
    attended = torch.einsum("bhw,bchw->bc", row, block.attended.value(x))
    expected = x[:, :, point[0], point[1]] + block.gamma * attended
    assert torch.allclose(block(x)[:, :, point[0], point[1]], expected, atol=1e-4)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
def test_a_row_of_non_local_gives_the_output_at_its_point(mode, point):
    block, x = _block("non_local", mode=mode, sub_sample=False, bn=False), random_features(C)
    mixed = torch.einsum("bhw,bchw->bc", block.attention(x, point)["query"], block.g(x))
    expected = x[:, :, point[0], point[1]] + block.W(mixed[:, :, None, None])[:, :, 0, 0]
    assert torch.allclose(block(x)[:, :, point[0], point[1]], expected, atol=1e-4)


@pytest.mark.parametrize("point", POINTS)
def test_a_row_of_a2_gives_the_output_at_its_point(point):
    block, x = _block("a2"), random_features(C)
    mixed = torch.einsum("bhw,bchw->bc", block.attention(x, point)["query"], block.features(x))
    expected = x[:, :, point[0], point[1]] + block.out(mixed[:, :, None, None])[:, :, 0, 0]
    assert torch.allclose(block(x)[:, :, point[0], point[1]], expected, atol=1e-5)


def test_a_row_of_one_head_is_mhsa():
    block, x = _block("mhsa", heads=1), random_features(C)
    value = block.qkv(x.flatten(2).transpose(1, 2)).chunk(3, 2)[2].transpose(1, 2).view_as(x)
    attended = torch.einsum("bhw,bchw->bc", block.attention(x, (1, 2))["query"], value)
    assert torch.allclose(block(x)[:, :, 1, 2], x[:, :, 1, 2] + block.out(attended), atol=1e-5)


# One head: options, the last layer, and the values that the row weighs.
ROWS = {
    "area": ({}, "proj", lambda block, x: block.qkv(x)[:, -C:]),
    "psa_yolo": ({"ratio": 1}, "proj", lambda block, x: block.qkv(x)[:, -C:]),
    "window": ({"window": 4, "shift": 2}, "out", lambda block, x: block.qkv(x)[:, -C:]),
    "biformer": ({"windows": 4}, "out", lambda block, x: block.qkv(x)[:, -C:]),
    "muse": ({}, "out", lambda block, x: block.qkv(x)[:, -C:]),
    "clo": (
        {"local_heads": 0, "window": 1},
        "out",
        lambda block, x: block.far.key_value(x)[:, -C:],
    ),
    "ufo": ({}, "out", lambda block, x: block.qkv(x)[:, -C:]),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_one_head_gives_what_is_projected(name, point):
    options, last, value = ROWS[name]
    block, x, projected = _block(name, heads=1, **options), random_features(C), []
    getattr(block, last).register_forward_pre_hook(lambda layer, given: projected.extend(given))
    block(x)
    row, value = block.attention(x, point)["query"], value(block, x)
    if name != "ufo":
        assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)
    attended = torch.einsum("bhw,bchw->bc", row, value)
    if hasattr(block, "pe"):
        attended = attended + block.pe(value)[:, :, point[0], point[1]]
    assert torch.allclose(projected[0][:, :, point[0], point[1]], attended, atol=1e-4)


@pytest.mark.parametrize("point", POINTS)
def test_a_row_of_halo_and_acmix_gives_the_output_at_its_point(point):
    x = random_features(C)
    halo = _block("halo", heads=1, block=3, halo=1, residual=False)
    acmix = _block("acmix", heads=1, kernel_att=5, residual=False)
    acmix.share_att.data.fill_(1.0)
    acmix.share_conv.data.zero_()
    for block, value in ((halo, halo.key_value(x)[:, C:]), (acmix, acmix.qkv(x)[:, 2 * C :])):
        row = block.attention(x, point)["query"]
        assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)
        attended = torch.einsum("bhw,bchw->bc", row, value)
        assert torch.allclose(block(x)[:, :, point[0], point[1]], attended, atol=1e-4)


@pytest.mark.parametrize("point", POINTS)
def test_a_row_of_outlook_sums_the_windows(point):
    block, x, projected = _block("outlook", heads=1, kernel_size=5), random_features(C), []
    block.out.register_forward_pre_hook(lambda layer, given: projected.extend(given))
    block(x)
    row = block.attention(x, point)["query"]
    attended = torch.einsum("bhw,bchw->bc", row, block.value(x))
    assert torch.allclose(projected[0][:, :, point[0], point[1]], attended, atol=1e-4)
    assert (row.sum((1, 2)) < 25.001).all() and (row.sum((1, 2)) > 1).all()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("mode", ["sum", "sequential"])
def test_a_row_of_axial_attention(mode, point):
    """With one head and values and outputs as they are, the row weighs x."""
    block, x = _block("axial", heads=1, mode=mode, residual=False), random_features(C)
    for lines in (block.columns, block.rows):
        torch.nn.init.eye_(lines.out.weight)
        torch.nn.init.zeros_(lines.out.bias)
        lines.qkv.weight.data[-C:] = torch.eye(C)
    row = block.attention(x, point)["query"]
    assert torch.allclose(row.sum((1, 2)), torch.ones(2), atol=1e-5)
    expected = torch.einsum("bhw,bchw->bc", row, x) * (1 if block.sequential else 2)
    assert torch.allclose(block(x)[:, :, point[0], point[1]], expected, atol=1e-4)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("mode", ["conv", "simple"])
def test_a_row_of_one_channel_is_the_attention_free_transformer(mode, point):
    block = open_gates(attention.build({"name": "aft", "heads": 1, "mode": mode}, 1)).eval()
    x = random_features(1)
    query, _, value = block.qkv(x).chunk(3, 1)
    mean = (block.attention(x, point)["query"] * value[:, 0]).sum((1, 2))
    expected = (x + query.sigmoid() * mean[:, None, None, None])[:, 0, point[0], point[1]]
    assert torch.allclose(block(x)[:, 0, point[0], point[1]], expected, atol=1e-5)


def test_cells_of_a_coarser_grid_lie_where_they_were_pooled():
    """Windows of 4 leave a row and a column of one cell; pools of 2 leave out the last of each."""
    for name, step in (("clo", 4), ("non_local", 2)):
        query = _block(name).attention(random_features(C))["query"]
        tops, lefts = range(0, H - H % step, step), range(0, W - W % step, step)
        cells = [query[:, y : y + step, x : x + step].flatten(1) for y in tops for x in lefts]
        assert all((cell == cell[:, :1]).all() for cell in cells)
        assert len({cell[0, 0].item() for cell in cells}) == len(cells)
        rest = torch.cat([query[:, -1], query[:, :, -1]], 1)
        assert (rest == 0).all() if name == "non_local" else (rest > 0).all()


def test_samples_of_deformable_attention_move_in_cells():
    block = attention.build({"name": "dat", "stride": 1, "offset_range": -1}, C).eval()
    offsets = block.offsets
    for parameter in (offsets.norm.weight, offsets.out.weight):
        torch.nn.init.zeros_(parameter)
    offsets.norm.bias.data[0] = 1.0  # one number, gelu(1), the same everywhere
    offsets.out.weight.data[0, 0] = -0.5  # of rows
    up = 0.5 * torch.nn.functional.gelu(torch.ones(())) * (H - 1) / 2
    maps = block.attention(random_features(C))
    moved = maps["displacement"]
    assert moved[:, 0].abs().max() < 1e-6  # cut off at the border
    assert torch.allclose(moved[:, 1:], up.expand(2, H - 1, W), atol=1e-5)
    rows = (torch.arange(H) - up).clamp(min=0)
    columns, rows = torch.meshgrid((torch.arange(W) + 0.5) / W, (rows + 0.5) / H, indexing="xy")
    x, y = maps["samples"].view(2, block.groups, H, W, 2).unbind(4)
    assert torch.allclose(x, columns.expand_as(x), atol=1e-6)
    assert torch.allclose(y, rows.expand_as(y), atol=1e-6)


# lka and ge see more than this map, ela normalizes whole rows and columns, biformer takes other
# regions, and ufo's rows have no fixed sum: their maps are compared with the output above.
FAR = {"lka", "ge", "ela", "biformer", "ufo"}


def test_a_feature_planted_in_a_corner_lights_up_that_corner():
    height, width, generator = 8, 12, torch.Generator().manual_seed(1)
    corner, beside = (0, width - 1), (0, width - 2)
    x = 0.3 * torch.randn(1, 32, height, width, generator=generator)
    planted = x.clone()
    planted[0, :, corner[0], corner[1]] += 4 * torch.randn(32, generator=generator)
    for name in set(attention.names()) - FAR:
        torch.manual_seed(0)
        block = open_gates(attention.build(name, 32)).eval().requires_grad_(False)
        plain, lit = block.attention(x, beside), block.attention(planted, beside)
        for key in {"spatial", "query"} & plain.keys():
            change = (lit[key] - plain[key])[0].square()
            change = change / change.sum()
            row = change.sum(1) @ torch.arange(height).float() / (height - 1)
            column = change.sum(0) @ torch.arange(width).float() / (width - 1)
            assert row < 0.5 < column, f"{name}: {row:.2f}, {column:.2f}"


def test_criss_cross_reaches_the_cross_once_and_everything_twice():
    x = random_features(C)
    once = _block("ccnet", recurrence=1).attention(x, (2, 3))["query"]
    cross = torch.zeros(H, W, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    assert (once[:, cross] > 0).all() and (once[:, ~cross] == 0).all()
    twice = _block("ccnet").attention(x, (2, 3))["query"]
    assert (twice > 0).all()
    assert torch.allclose(twice.sum((1, 2)), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("name", ["sk", "psa", "split", "cot", "muse"])
def test_branches_share_one(name):
    weights = _block(name).attention(random_features(C))["branch"]
    assert torch.allclose(weights.sum(1), torch.ones(2, weights.shape[2]), atol=1e-6)


def test_displacement_is_counted_in_positions():
    block = attention.build("stn", C).eval()
    assert block.attention(random_features(C))["displacement"].abs().max() == 0
    block.regress[2].bias.data[2] = 2 / W  # one position to the right
    block.regress[2].bias.data[5] = 4 / H  # two down
    assert torch.allclose(
        block.attention(random_features(C))["displacement"],
        torch.full((2, H, W), 5**0.5),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["self_attention", "non_local", "mhsa", "emsa", "ccnet", "a2"])
def test_the_middle_is_the_default_and_a_point_outside_is_refused(name):
    block, x = _block(name), random_features(C)
    assert torch.equal(block.attention(x)["query"], block.attention(x, (H // 2, W // 2))["query"])
    with pytest.raises(IndexError, match="outside"):
        block.attention(x, (H, 0))
