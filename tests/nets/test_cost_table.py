"""The command that measures attention blocks."""

import pytest

from nets import cost_table


def test_the_command_line(tmp_path, call, capsys):
    assert (
        call(
            cost_table,
            "eca",
            "--quick",
            "--rounds",
            "9",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "a" / "b.md"),
        )
        == 0
    )
    page = (tmp_path / "a" / "b.md").read_text()
    assert (
        "| eca | 15 |" in page
        and "medians of 2 rounds" in page
        and "nets.cost_table eca --quick" in page
    )
    assert "written: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ecca"], "unknown attention block 'ecca'; did you mean 'eca'?"),
        (["eca", "--at", "feta1"], "--at feta1: no such site; did you mean 'feat1'?"),
        (["--size", "100"], "--size: expected a multiple of 32 from 32"),
        (["--rounds", "0"], "--rounds: expected an integer from 1"),
        (
            ["--size", "32", "--batch", "1"],
            "--batch 1: batch normalization cannot train on maps of one cell",
        ),
    ],
)
def test_mistakes_are_one_line(call, capsys, arguments, message):
    assert call(cost_table, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
