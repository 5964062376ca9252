"""The yardstick of the hardware: the rate of PyTorch's matrix products.

It is what a program gets without tuning, no law: a runtime whose kernels suit the CPU better may exceed it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from utils.benchmark.rows import Row, Section
from utils.core.devices import DTYPES, pick_precision
from utils.core.timing import Budget, Clock, Stat, block_timed, interleave

BLOCK = 100.0  # milliseconds that a block of products takes at least
DTYPE = {"fp32": torch.float32, "tf32": torch.float32, **DTYPES}


@dataclass(frozen=True)
class Product:
    """A product of square matrices: `side`, `precision` and its clock; `rate` in GFLOP/s."""

    precision: str
    side: int
    clock: Clock
    rate: Stat

    @property
    def gflop(self) -> float:
        """10^9 operations of one product."""
        return 2e-9 * self.side**3


def peaks(device: torch.device, quick: bool = False) -> list[Product]:
    """The products of all sizes in every precision that the device computes in; `fastest` picks of them."""
    sides = (128, 256) if quick else (4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    made = [(name, side) for name in precisions(device) for side in sides]
    clocks = {made_of: product_clock(*made_of, device, 1.0 if quick else BLOCK) for made_of in made}
    named = {f"{name} {side}": clocks[name, side] for name, side in made}
    times = interleave(named, Budget(0, 3, 3) if quick else Budget(5, 5), "gemm")
    rates = [Stat.of(2e-6 * side**3 / times[f"{name} {side}"]) for name, side in made]
    return [Product(*pair, clocks[pair], rate) for pair, rate in zip(made, rates, strict=True)]


def fastest(products: list[Product], precision: str) -> Product | None:
    """The best size in a precision; none where it was not measured."""
    return max(
        (one for one in products if one.precision == precision),
        key=lambda one: one.rate.median,
        default=None,
    )


def section(products: list[Product]) -> Section:
    """A row for each precision and size."""
    rows = [
        Row(
            f"gemm.{one.precision}.{one.side}",
            f"{one.precision}, {one.side}x{one.side}",
            one.rate,
            "GFLOP/s",
        )
        for one in products
    ]
    return Section("gemm", "square matrix products; the best size of a precision is its peak", rows)


def precisions(device: torch.device) -> list[str]:
    """What to multiply in: emulated precisions are left out."""
    if device.type == "cuda":
        return (
            ["fp32", "tf32", "bf16", "fp16"]
            if pick_precision("auto", device) == "bf16"
            else ["fp32", "fp16"]
        )
    return (
        ["fp32", "fp16"]
        if device.type == "mps"
        else list(dict.fromkeys(["fp32", pick_precision("auto", device)]))
    )


def network_peak(precision: str, device: torch.device) -> str:
    """The precision of the products to compare a network with: on CUDA, convolutions in fp32 take TF32 by default."""
    tf32 = device.type == "cuda" and precision == "fp32" and torch.backends.cudnn.allow_tf32
    return "tf32" if tf32 and pick_precision("auto", device) == "bf16" else precision


def product_clock(precision: str, side: int, device: torch.device, block: float = BLOCK) -> Clock:
    """Milliseconds of a product, of blocks of at least `block` ms."""
    left, right = (torch.randn(side, side, device=device).to(DTYPE[precision]) for _ in range(2))
    out = torch.empty_like(left)
    return block_timed(_within(precision, lambda: torch.mm(left, right, out=out)), block, device)


def _within(precision: str, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        with _float32_as(precision):
            call()

    return run


@contextlib.contextmanager
def _float32_as(precision: str) -> Iterator[None]:
    """Float32 products in TF32 or in full, whatever is set; as before afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
