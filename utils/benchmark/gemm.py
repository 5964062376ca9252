"""The GEMM peak: the rate of PyTorch's matrix products, with which networks are compared.

It is reached without tuning; a runtime with better kernels for the CPU may exceed it.
"""

import torch

from utils.benchmark.results import Case, Measurement, ResultTable, measure
from utils.core.devices import DTYPES, pick_precision
from utils.core.timing import Budget, Clock, block_timed

DTYPE = {"fp32": torch.float32, "tf32": torch.float32, **DTYPES}


Product = tuple[Case, Measurement]  # a product of square matrices, and its rate


def measure_products(device: torch.device, quick: bool = False) -> list[Product]:
    """Measure several sizes in every precision that the device computes in."""
    sides: tuple[int, ...] = (4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    budget, block = Budget(5, 5), 100.0
    if quick:
        sides, budget, block = (128, 256), Budget(0, 3, 3), 1.0
    cases = []
    for precision in precisions(device):
        for side in sides:
            key, what = f"{precision}.{side}", f"{precision}, {side}x{side}"
            clock = product_clock(precision, side, device, block)
            gflop = 2e-9 * side**3
            cases.append(Case(key, what, clock, gflop, "GFLOP/s", precision=precision))
    rows, _ = measure(cases, budget, "gemm")
    return list(zip(cases, rows, strict=True))


def fastest_product(products: list[Product], precision: str) -> Case | None:
    """The fastest size in a precision, or None if it was not measured."""
    rates = {case: row.value.median for case, row in products if case.precision == precision}
    return max(rates, key=rates.__getitem__, default=None)


def gemm_table(products: list[Product]) -> ResultTable:
    """The table, one row per precision and size."""
    title = "square matrix products; the best size of a precision is its peak"
    return ResultTable("gemm", title, [row for _, row in products])


def precisions(device: torch.device) -> list[str]:
    """The precisions that the device does not emulate."""
    native_bf16 = pick_precision("auto", device) == "bf16"
    if device.type == "cpu":
        return ["fp32", "bf16"] if native_bf16 else ["fp32"]
    return ["fp32", "tf32", "bf16", "fp16"] if native_bf16 else ["fp32", "fp16"]


def network_precision(precision: str, device: torch.device) -> str:
    """The precision in which a network multiplies: on CUDA, fp32 convolutions use TF32."""
    tf32 = device.type == "cuda" and precision == "fp32" and torch.backends.cudnn.allow_tf32
    return "tf32" if tf32 and pick_precision("auto", device) == "bf16" else precision


def product_clock(precision: str, side: int, device: torch.device, block: float) -> Clock:
    """Milliseconds per product, measured over blocks of at least `block` ms."""
    left, right = torch.randn(2, side, side, device=device).to(DTYPE[precision])
    out = torch.empty_like(left)

    def multiply() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.mm(left, right, out=out)
        torch.set_float32_matmul_precision(before)

    return block_timed(multiply, block, device)
