"""`--verify` finds nothing in an undisturbed comparison, and every change."""

import pytest

from tests.utils.compare.attacks import ATTACKS
from utils.compare.planning.plan import Plan
from utils.compare.trials.results import DETECTIONS
from utils.compare.verification.verify import verify
from utils.core.errors import UserError


def test_an_undisturbed_comparison_is_verified(copied: Plan):
    found = verify(copied.out, {})
    assert found.differences == [] and found.lines()[-1] == "nothing differs"
    assert "trials: 4 of 4 scored again" in found.checked
    (copied.trials[0].folder / DETECTIONS).unlink()
    assert len(verify(copied.out, {}).differences) == 2  # and why the report was not made again


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_verify_finds_every_change(attack: str, copied: Plan) -> None:
    change, expected = ATTACKS[attack]
    change(copied)
    found = verify(copied.out, {}).differences
    first, *others = expected.split("|")
    assert found and found[0].startswith(f"{copied.out / first}")
    for other in others:
        assert any(line.startswith(f"{copied.out / other}") for line in found)
    assert all("\n" not in line for line in found)


@pytest.mark.slow
def test_verify_tells_other_labels_and_other_images_apart(copied: Plan) -> None:
    found = verify(copied.out, {"data.shapes_seed": 1}).differences
    assert found[0].startswith("data, split train: objects: planned")
    assert any(line.startswith("data, split val: labels: planned") for line in found)
    assert found[-1].endswith("the labels are not those of the plan")
    with pytest.raises(UserError, match=r"--verify with train\.epochs=\.\.\.: only keys of data"):
        verify(copied.out, {"train.epochs": 3})
    with pytest.raises(UserError, match="its record names no plan file"):
        verify(copied.out / "trials", {})
