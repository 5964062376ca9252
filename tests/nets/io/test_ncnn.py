"""Conversion to ncnn, without pnnx: the trace that it gets, and what it refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nets import attention
from nets.io import ncnn, ncnn_trace
from nets.io.exported import silence
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import make_config
from utils.core.errors import UserError

PNNX = """#!/bin/sh
touch model.ncnn.param model.ncnn.bin
echo '############# pass_ncnn' >&2
echo '{said}' >&2
exit {code}
"""


MOVES = ("aten::permute", "aten::transpose")


def live_nodes(trace: torch.jit.ScriptModule) -> list[torch._C.Node]:
    """What the result depends on."""
    graph = trace.inlined_graph
    torch._C._jit_pass_dce(graph)
    return list(graph.nodes())


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, torch.jit.ScriptModule]:
    torch.manual_seed(0)
    block = attention.build({"name": "window", "heads": 2, "shift": 3}, 8).eval().double()
    example = torch.rand(1, 8, 9, 16, dtype=torch.float64)
    with silence(), ncnn_trace._FewAxes(), torch.no_grad():
        return block, torch.jit.trace(block, example, check_trace=False)


def test_windows_are_cut_with_few_axes(traced: tuple[nn.Module, torch.jit.ScriptModule]) -> None:
    block, trace = traced
    x = torch.randn(1, 8, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(trace(x), block(x), rtol=0, atol=1e-14)  # sums in another order
    moves = [node for node in live_nodes(trace) if node.kind() in MOVES]
    axes = [node.output().type().dim() for node in moves]
    assert max(axes) == ncnn_trace.AXES


def test_a_trace_has_no_arithmetic_of_sizes(
    traced: tuple[nn.Module, torch.jit.ScriptModule],
) -> None:
    kinds = {node.kind() for node in live_nodes(traced[1])}
    assert not kinds & {"aten::size", "aten::numel", "aten::Int"}


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("stack along batch axis 0 is not supported", 0, "pnnx: stack along batch axis 0 is not"),
        ("unsupported normalize", 0, "pnnx: unsupported normalize"),
        ("### pass_level5", 9, "cannot convert this network: exit code 9, last words: pass_level5"),
    ],
)
def test_what_pnnx_refuses_is_no_file(
    said: str, code: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pnnx"
    program.write_text(PNNX.format(said=said, code=code))
    program.chmod(0o755)
    found = SimpleNamespace(EXEC_PATH=str(program))
    monkeypatch.setattr(ncnn, "require_package", lambda *_: found)
    monkeypatch.setattr(torch.jit, "save", lambda *_: None)
    monkeypatch.setattr(ncnn, "trace_for_pnnx", lambda *_: None)
    config = make_config({"input_size": 32})
    with pytest.raises(UserError, match=f"export to ncnn: .*{reason}"):
        ncnn.write_ncnn(build_model(config, 2), config, ("a", "b"), tmp_path / "new" / "a.param")
    assert not list((tmp_path / "new").iterdir())
