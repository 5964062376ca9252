"""Every section on small images: the rows that the JSON file promises."""

from types import SimpleNamespace

import pytest

from utils.benchmark import inference, post
from utils.benchmark.data import step_clock
from utils.benchmark.results import ResultTable
from utils.benchmark.sections import SECTIONS, choose_sections
from utils.benchmark.session import BenchmarkSession
from utils.benchmark.train import run_epoch
from utils.core.errors import UserError

ROWS = {
    "train": "baseline step.fp32 epoch.fp32 epoch_muon.fp32 decode_once share.batch share.forward "
    "share.loss share.loss_backward share.backward share.optimizer share.ema share.rest "
    "share.loss_whole",
    "inference": "baseline torch.fp32 end_to_end.torch.fp32 end_to_end overhead",
    "data": "step decode fill ram disk batch batch_plain batch_mosaic",
    "post": "loop select select_plain select_eval select_batch decode decode_batch",
    "evaluation": "cocoeval metrics network detector",
    "video": "decode detect render pipeline efficiency",
}
TARGETS = {
    "train": "epoch.fp32 share.loss_whole",
    "inference": "overhead",
    "post": "select select_plain select_eval",
    "video": "efficiency",
}


@pytest.fixture
def light(session: BenchmarkSession, monkeypatch: pytest.MonkeyPatch) -> BenchmarkSession:
    """Without the baseline's process, with few candidates and backends."""
    process = SimpleNamespace(clock=lambda name: lambda: 1.0)
    monkeypatch.setattr(session, "baseline", lambda training: process)
    monkeypatch.setattr(post, "CANDIDATES", 100)
    pairs = [("torch", "fp32"), ("onnxruntime", "fp64")]
    monkeypatch.setattr(inference, "backends_to_try", lambda _: pairs)
    return session


@pytest.mark.parametrize("name", ROWS)
def test_a_section_has_its_rows(light: BenchmarkSession, name: str):
    table: ResultTable = SECTIONS[name](light)
    assert table.name == name
    assert [row.key for row in table.rows] == ROWS[name].split()
    assert [row.key for row in table.rows if row.target] == TARGETS.get(name, "").split()
    if name in ("train", "inference"):
        counted = [row.key for row in table.rows if row.share_of_peak]
        expected = {"train": "step.fp32 epoch.fp32", "inference": "torch.fp32"}[name]
        assert counted == expected.split()
    if name == "inference":
        assert any(note.startswith("onnxruntime fp64 left out: ") for note in table.notes)


def test_backends_that_suit_the_device(session: BenchmarkSession, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inference, "pick_precision", lambda *_: "fp32")
    pairs = inference.backends_to_try(session)
    names = ["torch", "onnxruntime", "openvino", "ncnn", "litert"]  # quick: nothing is compiled
    assert pairs == [(name, "fp32") for name in names]


def test_sections_come_in_their_order_and_with_the_peak():
    assert choose_sections(["post"]) == ["post"]
    assert choose_sections(["inference", "train"]) == ["gemm", "train", "inference"]
    assert choose_sections([]) == list(SECTIONS)
    with pytest.raises(UserError, match="section 'trian' does not exist; did you mean 'train'"):
        choose_sections(["trian"])


def test_an_epoch_is_whole_whatever_ran_before(session: BenchmarkSession):
    trainer = session.trainer("fp32")
    step = step_clock(trainer, session.batch)
    for _ in range(3):
        step()
    assert trainer.progress.step == 1
    run_epoch(trainer)
    assert trainer.progress.step == trainer.batches.steps == 2
