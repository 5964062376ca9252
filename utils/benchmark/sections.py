"""The sections of the benchmark, in their order."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from utils.benchmark.data import data_table
from utils.benchmark.evaluation import evaluation_table
from utils.benchmark.gemm import gemm_table
from utils.benchmark.inference import inference_table
from utils.benchmark.post import post_table
from utils.benchmark.results import ResultTable
from utils.benchmark.session import BenchmarkSession
from utils.benchmark.train import train_table
from utils.benchmark.video import video_table
from utils.core.errors import UserError, nearest

SECTIONS: dict[str, Callable[[BenchmarkSession], ResultTable]] = {
    "gemm": lambda session: gemm_table(session.products),
    "train": train_table,
    "inference": inference_table,
    "data": data_table,
    "post": post_table,
    "evaluation": evaluation_table,
    "video": video_table,
}
NEED_GEMM = {"train", "inference"}  # they report shares of the GEMM peak


def choose_sections(names: Sequence[str]) -> list[str]:
    """Return the named sections in their order; all if none is named.

    Raises:
        UserError: a section does not exist.
    """
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"section '{name}' does not exist{nearest(name, SECTIONS)}")
    chosen = set(names or SECTIONS)
    if chosen & NEED_GEMM:
        chosen.add("gemm")
    return [name for name in SECTIONS if name in chosen]


def run_sections(session: BenchmarkSession, names: Sequence[str]) -> Iterator[ResultTable]:
    """Measure section by section; what libraries print meanwhile goes to stderr."""
    for name in names:
        with contextlib.redirect_stdout(sys.stderr), session.processes:
            table = SECTIONS[name](session)
        yield table
