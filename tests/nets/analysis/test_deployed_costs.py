"""What blocks cost in exported networks: which backends, and that every block is timed in them."""

import pytest

from nets.analysis.block_costs import BlockCost, CostOptions
from nets.analysis.deployed_costs import measure_deployed_costs, parse_backends
from utils.core.errors import UserError

SMALL = CostOptions(size=(32, 32), rounds=2)


def test_backends_by_name_and_precision():
    assert parse_backends(["torch", "compile:bf16"]) == {
        "torch fp32": ("torch", "fp32"),
        "compile bf16": ("compile", "bf16"),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("opnvino", "--backends opnvino: no such backend; did you mean 'openvino'"),
        ("torch:int8", "precision=int8: backend=torch computes in fp32, bf16, fp16"),
    ],
)
def test_what_is_not_offered_is_refused(word: str, message: str):
    with pytest.raises(UserError, match=message):
        parse_backends([word])


@pytest.mark.slow
def test_every_block_is_timed_beside_the_plain_network():
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    cost = BlockCost("se", 0, 0.0)
    measure_deployed_costs([cost], parse_backends(["onnxruntime"]), SMALL)
    [(title, times)] = cost.deployed.items()
    assert title == "onnxruntime fp32" and len(times.block) == len(times.plain) == SMALL.rounds
    assert min(times.block) > 0 < min(times.plain)
