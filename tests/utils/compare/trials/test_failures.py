"""Trials that failed are part of the result, not missing from it."""

import errno
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nets.io.tensors import check_tensors
from tests.utils.compare.example_scores import NONE
from utils.compare.analysis.comparison import Comparison
from utils.compare.reporting.phrases import sentence
from utils.compare.reporting.tables import report_tables
from utils.compare.statistics.paired import NO_DIFFERENCE
from utils.compare.trials.failures import Failure, classify, read_failure, write_failure
from utils.core.errors import NonFiniteError, UserError
from utils.core.outputs import WriteError

Scored = Callable[..., Comparison]
DIVERGED = Failure("diverged", "the loss is not finite in epoch 3")
LOST = Failure("infrastructure", "its worker died 4 times")
BROKEN = Failure("error", "ValueError: no such shape")
BETTER = [32.1, 32.2, 31.9, 32.1, 31.8, 32.3]


def test_a_setting_that_diverges_is_not_better_by_its_survivors(scored: Scored):
    (clear,) = scored(none=NONE, se=BETTER).pairs
    assert clear.verdict == "better" and "on 6 of 6 seeds" in sentence(clear)
    (pair,) = scored(none=NONE, se=[DIVERGED, *BETTER[1:4], DIVERGED, DIVERGED]).pairs
    assert pair.verdict != "better" and pair.ap.mean < -10
    # with 0 for the three that diverged, and beside it the other three alone
    assert pair.differences[0] == -30.0 and pair.survivors.seeds == 3
    assert pair.survivors.mean == pytest.approx(2.0, abs=0.1)
    text = sentence(pair)
    assert "on 3 of 6 seeds" in text and "se diverged on 3 of 6 seeds" in text
    assert "+2.0" in text and "scored 0" in text


def test_a_setting_is_not_worse_than_a_reference_that_diverges(scored: Scored):
    (pair,) = scored(none=[DIVERGED, *BETTER[1:]], se=NONE).pairs
    assert pair.verdict == NO_DIFFERENCE and pair.differences[0] == 30.0
    assert "none diverged on 1 of 6 seeds" in sentence(pair)


def test_a_setting_that_always_diverges_is_worse_and_not_absent(scored: Scored):
    comparison = scored(none=NONE, se=[DIVERGED] * 6)
    (pair,) = comparison.pairs
    assert pair.verdict == "worse" and pair.ap.mean == pytest.approx(-30.05)
    assert "se diverged on 6 of 6 seeds" in sentence(pair)


def test_trials_lost_to_the_machine_are_left_out_and_named_apart(scored: Scored):
    comparison = scored(none=NONE, se=[LOST, *BETTER[1:]])
    (pair,) = comparison.pairs
    assert pair.verdict == "better" and pair.ap.seeds == 5
    assert "on 5 of 6 seeds" in sentence(pair) and "diverged" not in sentence(pair)
    assert report_tables(comparison)[-1].rows == [["se, seed 0", "the machine", LOST.reason]]


def test_the_means_shown_are_those_of_the_difference(scored: Scored):
    comparison = scored(none=[10.0, *NONE[1:]], se=[LOST, *BETTER[1:]])
    (pair,) = comparison.pairs
    assert pair.means[0] - pair.means[1] == pytest.approx(pair.ap.mean)
    assert pair.means[1] == pytest.approx(30.06)  # without the seed that se lacks


def test_an_error_of_unknown_cause_prevents_a_verdict(scored: Scored):
    (pair,) = scored(none=NONE, se=[BROKEN, *BETTER[1:]]).pairs
    assert pair.verdict == NO_DIFFERENCE
    assert "1 of its trials failed with an error" in sentence(pair)
    assert "would be needed" not in sentence(pair)


def test_weights_that_are_not_finite_are_a_training_that_diverged():
    """A large learning rate may ruin the last step, so that best.pt cannot be read."""
    with pytest.raises(NonFiniteError, match=r"best\.pt: bias: contains NaN"):
        check_tensors({"bias": torch.tensor([1.0, math.nan])}, "best.pt")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NonFiniteError("the loss is not finite"), "diverged"),
        (MemoryError(), "infrastructure"),
        (RuntimeError("CUDA out of memory"), "infrastructure"),
        (UserError("out of memory with 8 images: set a smaller input_size"), "infrastructure"),
        (WriteError("cannot write x: no space left"), "infrastructure"),
        (OSError(errno.EIO, "input/output error"), "infrastructure"),
        (ValueError("shapes differ"), "error"),
        (UserError("phi: unknown block"), "error"),
    ],
)
def test_the_cause_of_a_failure_is_told_from_the_error(error: Exception, kind: str, tmp_path: Path):
    assert classify(error) == kind
    write_failure(tmp_path, Failure(kind, f"Traceback\n{error!r}\n"))
    assert read_failure(tmp_path) == Failure(kind, repr(error))


def test_a_failure_written_by_an_earlier_version_is_an_error(tmp_path: Path):
    (tmp_path / "error.txt").write_text("Traceback\nValueError: x\n", encoding="utf-8")
    assert read_failure(tmp_path) == Failure("error", "ValueError: x")
