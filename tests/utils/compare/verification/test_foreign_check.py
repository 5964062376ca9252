"""A report on detections of other programs is computed again."""

import json
import shutil
from pathlib import Path

import pytest

from tests.utils.compare.foreign_files import run, write
from utils.compare.foreign.coco_truth import Truth
from utils.compare.verification.verify import verify
from utils.core.errors import UserError


def test_a_report_can_be_verified(folder: Path, truth: Truth):
    run(folder, group="none")
    out = folder.parent / "out"
    found = verify(out, {})
    assert not found.differences and "trials: 5 of 6 scored again" in found.checked
    with pytest.raises(UserError, match="files of other programs, which have no keys"):
        verify(out, {"data.root": "x"})
    numbers = json.loads((out / "report.json").read_text())
    numbers["numbers"]["settings"]["b"]["ap"]["mean"] += 0.5
    stored = out / "trials" / "b" / "seed-1" / "detections.npz"
    shutil.copy(out / "trials" / "b" / "seed-0" / "detections.npz", stored)
    write(out / "report.json", numbers)
    found = verify(out, {})
    assert f"{stored}: not those of its file" in found.differences
    assert any("report.json: settings.b.ap.mean: stored" in line for line in found.differences)
    (folder / "a" / "seed-0.json").unlink()
    write(folder / "b" / "seed-2.json", [])
    found = verify(out, {})
    assert len(found.differences) == 3 and "nothing was computed again" in found.differences[-1]
    run(folder, group="none")
    assert not verify(out, {}).differences and (out / "plan-2.yaml").is_file()
