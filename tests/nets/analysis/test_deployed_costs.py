"""What blocks cost in exported networks: which backends, and that every block is timed in them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nets.analysis import deployed_costs
from nets.analysis.block_costs import BlockCost, CostOptions
from nets.analysis.deployed_costs import measure_deployed_costs, parse_backends
from nets.inference.backends import ModelSpec
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


class Refused(nn.Module):
    """A user's block that no backend takes."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x):
        return x


def test_a_backend_that_refuses_a_block_does_not_stop_the_others(monkeypatch):
    def make_backend(name: str, spec: ModelSpec) -> Callable[[torch.Tensor], object]:
        if spec.config.phi.endswith("Refused"):
            raise UserError("no such layer")
        return lambda canvases: None

    monkeypatch.setattr(deployed_costs, "make_backend", make_backend)
    refused, se = BlockCost(f"{__name__}:Refused", 0, 0.0), BlockCost("se", 0, 0.0)
    measure_deployed_costs([refused, se], parse_backends(["torch"]), SMALL)
    assert refused.refused == {"torch fp32": "no such layer"} and se.refused == {}
    assert refused.deployed["torch fp32"].block == []
    assert len(se.deployed["torch fp32"].block) == SMALL.rounds


@pytest.mark.slow
def test_every_block_is_timed_beside_the_plain_network():
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    cost = BlockCost("se", 0, 0.0)
    measure_deployed_costs([cost], parse_backends(["onnxruntime"]), SMALL)
    [(title, times)] = cost.deployed.items()
    assert title == "onnxruntime fp32" and len(times.block) == len(times.plain) == SMALL.rounds
    assert min(times.block) > 0 < min(times.plain)
