"""The catalog of blocks: docstrings, the command, and docs/blocks.md, which is its output."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from nets import attention
from nets.analysis import block_docs
from nets.analysis.block_docs import all_sections, block_facts, catalog_page, parse_docstring
from nets.analysis.saved_memory import saved_bytes
from nets.attention import __main__ as command
from nets.attention.start import input_correlation

PAGE = Path(__file__).resolve().parents[3] / "docs" / "blocks.md"
COMMAND = "python -m nets.attention --out docs/blocks.md"
HINT = f"out of date: {COMMAND}"
SOME = ("cam", "eca", "lsk", "simam", "stn", "mhsa")


def test_the_page_is_the_output_of_the_command() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.endswith(f"\n{all_sections()}\n"), HINT
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines()]
    assert rows[rows.index("block") + 2 :][: len(attention.names())] == attention.names(), HINT
    for name in SOME:
        assert f"\n{block_docs.table_row(name)}\n" in page, HINT


@pytest.mark.slow
def test_the_numbers_of_the_page_are_those_of_the_command() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalog_page(COMMAND), HINT


def test_every_block_tells_its_formula_options_and_traps() -> None:
    for name in attention.names():
        info = attention.block_info(name)
        about = inspect.cleandoc(importlib.import_module(info.factory.__module__).__doc__ or "")
        formula = [line for line in about.splitlines() if line.startswith("    ")]
        assert any("=" in line for line in formula) and info.paper, name
        docstring = parse_docstring(info.factory.__doc__ or "")
        assert list(docstring.args) == list(inspect.signature(info.factory).parameters), name
        assert all(docstring.args.values()) and docstring.traps, name


def test_a_docstring_is_taken_apart() -> None:
    parsed = parse_docstring("""One line.

        And more.

        Args:
            channels: C.
            width: of it,
                2: as in the paper.

        Traps:
            - One
              and a half.
            - Two.
        """)
    assert parsed.text == "One line.\n\nAnd more."
    assert parsed.args == {"channels": "C.", "width": "of it, 2: as in the paper."}
    assert parsed.traps == ["One and a half.", "Two."]


def test_the_table_of_some_blocks() -> None:
    facts = {name: block_facts(name) for name in ("self_attention", "ccnet", "lka", "se", "cbam")}
    assert [fact.memory for fact in facts.values()] == ["N^2", "N^1.5", "N", "none", "N"]
    assert [fact.start for fact in facts.values()][:3] == ["identity", "identity", "erases"]
    assert facts["cbam"].cost.params == 86_310 and facts["cbam"].start == "keeps"


def test_saved_bytes_of_a_sequence_on_the_meta_device() -> None:
    x = torch.zeros(1, 2, 3, 4, device="meta", requires_grad=True)
    assert saved_bytes(nn.Sequential(nn.Sigmoid(), nn.Tanh()), x) == 2 * 4 * x.numel()
    assert saved_bytes(nn.Conv2d(2, 1, 1, device="meta"), x) == 0  # x and the weights


def test_the_correlation_with_the_input() -> None:
    assert input_correlation(nn.Identity(), 8) == pytest.approx(1)
    flip = nn.ChannelShuffle(4).train()
    assert abs(input_correlation(flip, 64)) < 0.1 and flip.training


def test_the_command(monkeypatch, capsys, tmp_path, call) -> None:
    monkeypatch.setattr(command.attention, "names", lambda: ["eca", "se"])
    assert call(command) == 0
    header, eca, se, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["block", "family", "parameters"]
    assert eca.split()[:3] == ["eca", "channel", "15"] and se.startswith("se ")
    assert call(command, "lsk", "tests.nets.attention.user_blocks:Good") == 0
    page = capsys.readouterr().out
    assert "| `projections` | false | the paper's whole block, which keeps x. |" in page
    assert "arXiv 2303.09030" in page and "- The factor has no bounds" in page
    assert "## tests.nets.attention.user_blocks:Good" in page
    assert call(command, "--out", str(tmp_path / "page.md")) == 0
    assert (tmp_path / "page.md").read_text().count("\n| se | channel | 43,008 |") == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ecca", "did you mean 'eca'?"),
        ("ECA", "did you mean 'eca'?"),
        ("none", "none is no block"),
        ("no_such_package:Block", "cannot import 'no_such_package:Block'"),
    ],
)
def test_a_wrong_name_is_one_line(word, message, call, capsys) -> None:
    assert call(command, word) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
