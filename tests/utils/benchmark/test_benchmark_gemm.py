"""Matrix products: which are measured, in which precisions, and which is the peak."""

import pytest
import torch

from utils.benchmark import gemm
from utils.benchmark.gemm import (
    Product,
    fastest_product,
    gemm_table,
    measure_products,
    network_precision,
    precisions,
)
from utils.benchmark.results import Case, Measurement
from utils.core.timing import Stat

CPU = torch.device("cpu")


def product(precision: str, side: int, rate: float) -> Product:
    key = f"{precision}.{side}"
    case = Case(key, "product", lambda: 1.0, precision=precision)
    return case, Measurement(key, "product", "GFLOP/s", Stat.of([rate]))


def test_the_best_size_of_a_precision_is_its_peak():
    small, large = product("fp32", 1000, 90.0), product("fp32", 2000, 100.0)
    half = product("bf16", 1000, 300.0)
    products = [small, large, half]
    assert fastest_product(products, "fp32") is large[0]
    assert fastest_product(products, "bf16") is half[0]
    assert fastest_product(products, "fp16") is None
    keys = [row.key for row in gemm_table(products).rows]
    assert keys == ["fp32.1000", "fp32.2000", "bf16.1000"]


@pytest.mark.parametrize("native", ["bf16", "fp32"])
def test_emulated_precisions_are_left_out(native: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gemm, "pick_precision", lambda *_: native)
    assert precisions(CPU) == (["fp32", "bf16"] if native == "bf16" else ["fp32"])
    assert network_precision("fp32", CPU) == "fp32"
    cuda = torch.device("cuda")
    assert network_precision("fp32", cuda) == ("tf32" if native == "bf16" else "fp32")
    assert network_precision("fp16", cuda) == "fp16"


def test_rates_follow_from_times(monkeypatch: pytest.MonkeyPatch):
    """As if a product of 256x256 took 2 ms, one of 128x128 1 ms."""
    times = {128: 1.0, 256: 2.0}
    monkeypatch.setattr(gemm, "precisions", lambda _: ["fp32"])
    monkeypatch.setattr(gemm, "product_clock", lambda _, side, *__: lambda: times[side])
    (_, small), (_, large) = measure_products(CPU, quick=True)
    assert small.value.median == pytest.approx(2 * 128**3 / 1e9 / 1e-3)
    assert large.value.median == pytest.approx(2 * 256**3 / 1e9 / 2e-3)


def test_products_run_and_leave_the_settings():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert gemm.product_clock("fp32", 16, CPU, 0.1)() > 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
