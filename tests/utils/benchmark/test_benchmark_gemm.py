"""Matrix products: which are measured, in what, and which is the peak."""

import pytest
import torch

from utils.benchmark import gemm
from utils.benchmark.gemm import Product, fastest, network_peak, peaks, precisions, section
from utils.core.timing import Stat

CPU = torch.device("cpu")


def product(precision: str, side: int, rate: float) -> Product:
    return Product(precision, side, lambda: 1.0, Stat.of([rate]))


def test_the_best_size_of_a_precision_is_its_peak():
    some = [product("fp32", 1000, 90.0), product("fp32", 2000, 100.0), product("bf16", 1000, 300.0)]
    assert (
        fastest(some, "fp32") is some[1]
        and fastest(some, "bf16") is some[2]
        and fastest(some, "fp16") is None
    )
    assert some[1].gflop == pytest.approx(16.0), "2 n^3"
    assert [row.key for row in section(some).rows] == [
        "gemm.fp32.1000",
        "gemm.fp32.2000",
        "gemm.bf16.1000",
    ]


def test_emulated_precisions_are_left_out(monkeypatch: pytest.MonkeyPatch):
    for native, expected in (("bf16", ["fp32", "bf16"]), ("fp32", ["fp32"])):
        monkeypatch.setattr(gemm, "pick_precision", lambda *_, native=native: native)
        assert precisions(CPU) == expected
    assert network_peak("fp32", CPU) == "fp32"
    cuda = torch.device("cuda")
    for native, expected in (("bf16", "tf32"), ("fp32", "fp32")):
        monkeypatch.setattr(gemm, "pick_precision", lambda *_, native=native: native)
        assert network_peak("fp32", cuda) == expected and network_peak("fp16", cuda) == "fp16"


def test_rates_follow_from_times(monkeypatch: pytest.MonkeyPatch):
    """As if a product of 256x256 took 2 ms, the others 1 ms."""
    monkeypatch.setattr(gemm, "precisions", lambda _: ["fp32"])
    monkeypatch.setattr(
        gemm, "product_clock", lambda precision, side, *_: lambda: {128: 1.0, 256: 2.0}[side]
    )
    small, large = peaks(CPU, quick=True)
    assert (small.side, large.side) == (128, 256)
    assert small.rate.median == pytest.approx(2 * 128**3 / 1e9 / 1e-3)
    assert large.rate.median == pytest.approx(2 * 256**3 / 1e9 / 2e-3)


def test_products_run_and_leave_the_settings():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert gemm.product_clock("fp32", 16, CPU, 0.1)() > 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
