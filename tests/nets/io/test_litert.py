"""Conversion to LiteRT, without litert-torch: what is computed beforehand."""

import torch
from torch import Tensor, nn

from nets.io.litert import fold_constants


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(3.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near, far = (self.table * torch.eye(x.shape[1])).chunk(2)
        return x @ near.T.exp(), (x + x.amax()) @ far.T


def test_what_does_not_depend_on_the_input_is_a_constant() -> None:
    x = torch.randn(4, 3)
    folded = torch.export.export(Masked(), (x,)).module()
    fold_constants(folded)
    for found, wanted in zip(folded(x), Masked()(x), strict=True):
        torch.testing.assert_close(found, wanted)
    calls = [str(node.target) for node in folded.graph.nodes if node.op == "call_function"]
    expected = {"aten.matmul.default", "aten.amax.default", "aten.add.Tensor"}
    assert sorted(calls) == sorted([*expected, "aten.matmul.default"])
