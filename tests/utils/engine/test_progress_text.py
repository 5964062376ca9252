"""Lines of a training, and when a longer one is suggested."""

import math

import pytest

import utils.engine.progress_text
from utils.engine.progress_text import Clock, epoch_line, note_if_rising

ROW = {"epoch": 3, "loss": 5.5614, "map50": 0.224, "map50_95": 0.081}


def history(*values: float) -> list[dict[str, float]]:
    return [{"epoch": index + 1, "map50_95": value} for index, value in enumerate(values)]


def test_the_line_of_an_epoch():
    line = epoch_line(ROW, 25, improved=True, left="12 min left")
    assert line == "epoch 3/25  loss 5.561  AP50 22.4  AP 8.1  best  (12 min left)"
    unknown = {**ROW, "map50": math.nan, "map50_95": math.nan}
    assert epoch_line(unknown, 3, True, "0 s left") == (
        "epoch 3/3  loss 5.561  AP unknown: no objects to find, so the last epoch counts as best"
    )
    assert epoch_line({"epoch": 3, "loss": 1.0}, 3, False, "0 s left") == "epoch 3/3  loss 1.000"


def test_time_left_follows_the_pace_of_this_process(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(utils.engine.progress_text.time, "monotonic", lambda: now[0])
    clock = Clock(total=1000, done=400)  # resumed
    now[0] += 50
    assert not clock.is_due()
    assert clock.left(500) == "4 min left"  # 100 steps in 50 s, 500 left
    now[0] += 10
    assert clock.is_due() and not clock.is_due()


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        ([0.1, 0.2, 0.25, 0.28, 0.30, 0.32, 0.34, 0.36, 0.38], True),
        ([0.1, 0.2, 0.25, 0.28, 0.30, 0.32, 0.34, 0.38, 0.36], True),  # noisy, but rising
        ([0.1, 0.2, 0.30, 0.35, 0.36, 0.37, 0.371, 0.372, 0.373], False),
        ([0.1, 0.2, 0.30, 0.35, 0.36, 0.37, 0.38, 0.36, 0.37], False),
        ([0.01, 0.02, 0.03, 0.03, 0.03, 0.03, 0.03, 0.032, 0.034], False),  # below a point
        ([0.1, 0.2, 0.3], False),  # too few evaluations to tell
        ([math.nan] * 9, False),
        ([], False),
    ],
)
def test_a_longer_training_is_suggested_if_ap_still_rises(values: list[float], rises: bool):
    note = note_if_rising(history(*values))
    assert (note is not None) == rises
    if note is not None:
        assert note.endswith("e.g. train.epochs=18")


def test_epochs_without_an_evaluation_do_not_matter():
    rows = history(*[0.0] * 12, 0.30, 0.31, 0.33, 0.345, 0.36, 0.38)
    for row in rows[12:18:2]:
        del row["map50_95"]
    note = note_if_rising(rows)
    assert note is not None and "from 31.0 to 38.0" in note
