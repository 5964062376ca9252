"""What blocks cost: what is counted, how times are paired, and the page."""

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from nets.analysis.block_costs import (
    BlockCost,
    CostOptions,
    PairedTimes,
    cost_page,
    measure_block_costs,
)
from nets.analysis.flops import Cost, count_parameters
from nets.attention import build
from utils.core.errors import UserError

SMALL = CostOptions(size=(32, 32), rounds=2, batch=2, device="cpu", precision="fp32")


class Clock:
    """Advances only inside a slow block."""

    now = 0.0


class Slow(nn.Module):
    """A user's block with 7 parameters that takes 10 ms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(7))

    def forward(self, x):
        Clock.now += 0.01
        return x * self.weight.mean()


def test_what_a_block_adds(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    plain, (slow, cbam) = measure_block_costs([f"{__name__}:Slow", "cbam"], SMALL)
    assert plain.params == 5_918_006 and slow.params == 3 * 7 and slow.gflops == 0
    assert cbam.params == sum(
        count_parameters(build("cbam", channels)) for channels in (256, 512, 128)
    )
    # the block keeps its input, and the next layer its output: one map more, but for feat1, whose
    # map is kept anyway, and which goes into a concatenation that keeps nothing
    maps = 4 * (1 * 1 * 512 + 2 * 2 * 128)
    assert slow.memory == pytest.approx(maps / 1e6, rel=0.01) and cbam.memory > slow.memory
    pooled = 2 * sum(2 * 2 * c * (c // 8) for c in (256, 512, 128))
    spatial = 2 * 2 * 49 * (2 * 2 + 1 * 1 + 2 * 2)
    assert cbam.gflops == pytest.approx((pooled + spatial) / 1e9)
    for times in (slow.forward, slow.training):
        assert times.block == pytest.approx([30.0] * SMALL.rounds), "10 ms at each of three sites"
        assert times.plain == [0.0] * SMALL.rounds


def quartiles(times: PairedTimes) -> tuple[float, float, float]:
    added = times.added_percent
    return added.median, added.low, added.high


def test_the_added_share_is_the_median_over_pairs_not_over_all():
    """The machine is ten times slower in the second half: the block still costs a tenth more."""
    times = PairedTimes([11.0, 11.0, 11.0, 110.0, 110.0], [10.0, 10.0, 10.0, 100.0, 100.0])
    assert quartiles(times) == pytest.approx((10, 10, 10)) and times.median == 11
    times = PairedTimes([11.0, 12.0, 13.0, 14.0, 15.0], [10.0] * 5)
    assert quartiles(times) == pytest.approx((30, 20, 40))


def test_the_page():
    costs = [
        BlockCost(
            "dear", 1234567, 1.5, 2.5, PairedTimes([30.0], [10.0]), PairedTimes([200.0], [100.0])
        ),
        BlockCost("cheap", 5, 0.0, 0.0, PairedTimes([11.0], [10.0]), PairedTimes([99.0], [100.0])),
    ]
    for cost in costs:
        cost.deployed["openvino int8"] = PairedTimes([6.0], [5.0])
    page = cost_page(
        Cost(5_918_006, 6.814), costs, SMALL, "python -m nets.cost_table cheap dear"
    ).splitlines()
    rows = [row for row in page if row.startswith("|")][2:]
    assert rows == [
        "| none (phi 0) | 5,918,006 in all | 6.814 in all | | 10.0 | | 100.0 | | 5.0 | |",
        "| cheap | 5 | 0.0000 | 0.00 | 11.0 | +10% (+10 to +10) | 99.0 | −1% (−1 to −1) "
        "| 6.0 | +20% (+20 to +20) |",
        "| dear | 1,234,567 | 1.5000 | 2.50 | 30.0 | +200% (+200 to +200) "
        "| 200.0 | +100% (+100 to +100) | 6.0 | +20% (+20 to +20) |",
    ]
    assert "    python -m nets.cost_table cheap dear" in page
    text = "\n".join(page)
    assert (
        "feat1, feat2, upsample" in text
        and "32x32" in text
        and torch.__version__.split("+")[0] in text
    )
    assert str(Path.home()) not in text


def test_a_backend_that_refuses_a_block_is_named_below_the_table():
    cost = BlockCost("odd", 1, 0.0, 0.0, PairedTimes([2.0], [1.0]), PairedTimes([2.0], [1.0]))
    cost.deployed["ncnn fp32"] = PairedTimes()
    cost.refused["ncnn fp32"] = "pnnx: no such layer"
    page = cost_page(Cost(1, 1.0), [cost], SMALL, "python -m nets.cost_table odd")
    assert page.endswith("| – | – |\n\n- odd does not run in ncnn fp32: pnnx: no such layer\n")


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="CUDA devices"):
        measure_block_costs(["eca"], CostOptions(device="cuda:99"))
