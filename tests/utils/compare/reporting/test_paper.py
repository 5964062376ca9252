"""`report.tex` compiles whatever settings are called, and says what the report says."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.utils.compare.example_scores import NONE
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.registration import Registration
from utils.compare.reporting.numbers import report_numbers
from utils.compare.reporting.paper import Tex, escape, render_methods, render_tex
from utils.compare.trials.failures import Failure

NEAR = [30.1, 30.2, 29.9, 30.2, 29.7, 30.3]
BETTER = [32.1, 32.2, 31.9, 32.1, 31.8, 32.3]
ODD = (
    r"\input{x}",
    "50% of $5 & #1_a^b~{c}",
    "[t] * -- `<x>` |\"'",
    "% }",
    "\\",
    "a\n\nb",
)
SPECIAL = re.compile(r"(?<!\\)[%$#_^~&]")


@pytest.fixture
def named(scored: Callable[..., Comparison]) -> Callable[..., Comparison]:
    """`named(names)`: a comparison of settings with these names and `none`."""

    def make(*names: str) -> Comparison:
        scores = dict(zip(names, (BETTER, NEAR, NONE[::-1]), strict=False))
        return scored(margin=1.0, none=NONE, **scores)

    return make


def balanced(text: str) -> bool:
    """Whether environments and braces end as they begin."""
    open_ones: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_ones.append(name)
        elif not open_ones or open_ones.pop() != name:
            return False
    plain = re.sub(r"\\.", "", text)
    return not open_ones and plain.count("{") == plain.count("}")


@pytest.mark.parametrize("name", ODD)
def test_no_name_is_a_command(name: str):
    text = escape(name)
    outside = re.sub(r"\$[^$]*\$|\\text\w+\{\}", "", text)
    assert not SPECIAL.search(outside) and "\n" not in text and balanced(text)
    assert "--" not in text and "\\input" not in text
    assert escape(Tex(name)) == name


def test_every_row_has_as_many_cells(named: Callable[..., Comparison]):
    text = render_tex(named(*ODD[:3]))
    assert balanced(text)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    rows = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    cells = [len(re.split(r"(?<!\\)&", row)) for row in rows if row.endswith(r" \\")]
    assert columns and set(cells) == {len(columns[1])} == {10} and len(cells) == 5


def test_the_table_says_what_the_report_says(named: Callable[..., Comparison]):
    comparison = named("se", "eca")
    text, methods = render_tex(comparison), render_methods(comparison)
    pair = report_numbers(comparison)["pairs"]["se against none"]
    rows = {line.partition(" ")[0]: line for line in text.splitlines()}
    assert rf"32.07 $\pm$ 0.19 & +{pair['ap']['mean']:.2f} &" in rows["se"]
    assert r"$\uparrow$ & 0.001" in rows["se"] and r"$\approx$ & 0.001" in rows["eca"]
    for part in ("6 seeds (0 to 5)", "margin of 1 AP"):
        assert part in text and part in methods
    assert "for 2 comparisons" in text and "all 2 comparisons together" in methods
    assert "plan file" not in methods and "xeCJK" not in text and "inputenc" in text
    later = Registration("plan-2.yaml", "0f" * 32, "", 4, "plan.yaml", ("+settings.eca",))
    methods = render_methods(replace(comparison, registration=later))
    assert "0f0f0f0f0f0f0f0f...) after 4 trials had begun; it differs" in methods


def test_missing_seeds_and_numbers_are_shown(scored: Callable[..., Comparison]):
    lost = Failure("infrastructure", "reason")
    text = render_tex(scored(none=NONE, se=[lost, *BETTER[1:]]))
    assert "(5 seeds)" in text and "Trainings that diverged count as 0 AP" in text
    assert balanced(render_tex(scored(none=NONE[:1], se=NEAR[:1])))


def test_chinese_names_ask_for_another_compiler(named: Callable[..., Comparison]):
    text = render_tex(named("注意力", "é–ß"))
    assert "compile this file with xelatex" in text and r"\usepackage{xeCJK}" in text
    assert "xelatex" not in render_tex(named("é–ß", "“x”"))
    text = render_tex(named("внимание"))
    assert "compile this file with xelatex" in text and "xeCJK" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "names"), [("pdflatex", ODD[:3]), ("pdflatex", ODD[3:]), ("xelatex", ("注意力",))]
)
def test_it_compiles(
    compiler: str, names: tuple[str, ...], named: Callable[..., Comparison], tmp_path: Path
):
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    text = re.sub(r"\\includegraphics.*", "", render_tex(named(*names)))
    (tmp_path / "report.tex").write_text(text, encoding="utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
