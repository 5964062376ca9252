"""The table of the network, and what it adds up to."""

import pytest
import torch

from nets import __main__ as command
from nets import attention
from nets.analysis.flops import count_parameters, measure_blocks, measure_cost
from nets.analysis.sites import observe_sites, site_shapes
from nets.analysis.summary import describe_network, summarize
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny, build_model
from utils.core.config import make_config

SIZE = (64, 96)
PLACED = {
    "csp1": "self_attention",
    "feat1": "eca",
    "upsample": {"name": "cbam", "reduction": 16},
    "head32": "sk",
}


def network(sites=None, **options) -> YOLOv4Tiny:
    return YOLOv4Tiny(3, sites=sites, **options)


@pytest.mark.parametrize("sites", [None, PLACED])
def test_the_rows_add_up_to_the_network(sites):
    net = network(sites)
    rows, cost = summarize(net, SIZE), measure_cost(net, SIZE)
    assert sum(row.params for row in rows) == count_parameters(net) == cost.params
    assert sum(row.gflops for row in rows) == pytest.approx(cost.gflops, rel=1e-9)
    assert {row.site for row in rows if row.block} == set(sites or {})


def test_every_site_has_a_row_with_its_shape_in_the_order_of_the_forward_pass():
    rows = summarize(network(PLACED), SIZE)
    sites = [row for row in rows if row.site]
    assert [row.site for row in sites] == list(SITES)
    assert {row.site: row.shape[0] for row in sites} == SITES
    order = {row.site or row.layer: index for index, row in enumerate(rows)}
    assert (
        order["backbone.csp1.conv4"]
        < order["csp1"]
        < order["stage1"]
        < order["backbone.csp2.conv1"]
    )
    assert (
        order["neck.lateral"]
        < order["lateral"]
        < order["neck.reduce"]
        < order["upsample"]
        < order["head32"]
    )
    shapes = {row.site or row.layer: row.shape for row in rows}
    assert shapes["backbone.stem1"] == (32, 32, 48) and shapes["stage1"] == (128, 16, 24)
    assert (
        shapes["feat1"] == (256, 4, 6)
        and shapes["feat2"] == (512, 2, 3)
        and shapes["upsample"] == (128, 4, 6)
    )
    assert shapes["predict16"] == (24, 4, 6)


def test_a_convolution_costs_what_its_formula_says():
    rows = {row.layer: row for row in summarize(network(), SIZE)}
    assert rows["backbone.last"].params == 512 * 512 * 9 + 2 * 512
    assert rows["backbone.last"].gflops == pytest.approx(2 * 512 * 512 * 9 * (2 * 3) / 1e9)
    assert rows["predict32"].params == 513 * 24


def test_a_block_has_its_own_cost_also_inside_a_csp_block():
    rows = {row.site: row for row in summarize(network(PLACED), SIZE) if row.site}
    assert rows["csp1"].params == count_parameters(attention.build("self_attention", 64))
    positions, width, channels = 16 * 24, 64 // 8, 64
    projections = 2 * positions * channels * (2 * width + channels)
    scores = 2 * positions * positions * (width + channels)
    assert rows["csp1"].gflops == pytest.approx((projections + scores) / 1e9)
    assert rows["stem"].params == 0 and rows["stem"].block == ""


def test_the_network_is_left_as_it_was():
    net = network(PLACED, init="identity").train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    summarize(net, SIZE)
    assert net.training and list(net.attention) == list(PLACED)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_the_printed_table(call, capsys):
    assert (
        call(
            command,
            "--classes",
            "3",
            "input_size=[64, 96]",
            "phi={feat1: eca, head16: {name: cbam, reduction: 4}}",
        )
        == 0
    )
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "3 classes, input 3 x 64 x 96" in lines[0] and "attention.init: paper" in lines[0]
    assert (
        " ".join(next(line for line in lines if " feat1 " in line).split())
        == "256 x 4 x 6 feat1 eca 5 0.0000"
    )
    assert "head16    cbam(reduction=4)" in text
    added = 5 + 2 * 256 * 64 + 2 * 49
    assert (
        next(line for line in lines if line.startswith("attention only")).split()[2] == f"{added:,}"
    )
    assert f"{count_parameters(network()) + added:,}" in next(
        line for line in lines if line.startswith("total")
    )
    assert all(f"{site} {channels}" in lines[-1] for site, channels in SITES.items())


def test_without_attention_there_is_no_line_for_it():
    text = describe_network(make_config({"input_size": 64}), 2)
    assert "attention only" not in text and "attention.init" not in text


def test_half_precision_and_modes_of_modules_are_respected() -> None:
    network = build_model(make_config({"phi": "se"}), 2).train().bfloat16()
    network.backbone.eval()
    modes = [module.training for module in network.modules()]
    wide = summarize(build_model(make_config({"phi": "se"}), 2), (64, 64))
    assert summarize(network, (64, 64)) == wide
    shapes = site_shapes(network, (64, 64))
    assert measure_blocks(network.attention, shapes).params > 0
    assert [module.training for module in network.modules()] == modes


def test_observations_may_be_nested() -> None:
    network = YOLOv4Tiny(1).eval()
    seen: list[str] = []
    with observe_sites(network, lambda *_: seen.append("outer")):
        with observe_sites(network, lambda *_: seen.append("inner")):
            site_shapes(network, (32, 32))
        both = len(seen)
        site_shapes(network, (32, 32))
    site_shapes(network, (32, 32))
    assert seen.count("inner") == both // 2 > 0 and seen.count("outer") == both
