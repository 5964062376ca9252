"""Every section on small images: its rows, their arithmetic and their ties to one another."""

import dataclasses

import numpy as np
import pytest

from utils.benchmark import data, evaluation, inference, post, train
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section
from utils.benchmark.run import chosen
from utils.core.errors import UserError
from utils.core.timing import Budget, Clock


class Scripted:
    """In place of `in_turns`: every clock runs once, then the times are those of a script, others 10 ms."""

    def __init__(self, times: dict[str, list[float]]) -> None:
        self.times = times
        self.asked: list[str] = []

    def __call__(
        self, clocks: dict[str, Clock], effort: Budget, title: str = ""
    ) -> dict[str, np.ndarray]:
        self.asked = list(clocks)
        for clock in clocks.values():
            assert clock() >= 0
        return {name: np.array(self.times.get(name, [10.0])) for name in clocks}


class NoProcess:
    """In place of the yardstick's process."""

    def clock(self, name: str) -> Clock:
        return lambda: 1.0


@pytest.fixture
def quiet(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(bench, "naive", lambda training: NoProcess())
    return bench


def rows_of(section: Section) -> dict[str, Row]:
    found = {row.key: row for row in section.rows}
    assert len(found) == len(section.rows) and all(
        key.startswith(f"{section.name}.") for key in found
    )
    return found


def test_training_is_compared_with_the_naive_step(quiet: Bench, monkeypatch: pytest.MonkeyPatch):
    side = quiet.peak("fp32").side
    script = Scripted(
        {"naive": [80.0], "step fp32": [20.0], "epoch fp32": [80.0], "peak fp32": [0.5]}
    )
    monkeypatch.setattr(train, "interleave", script)
    rows = rows_of(train.section(quiet))
    assert script.asked == ["naive", "step fp32", "peak fp32", "epoch fp32", "parts"]
    assert rows["train.naive"].value.median == pytest.approx(4 / 0.080), "a batch of 4 in 80 ms"
    step, epoch = rows["train.step.fp32"], rows["train.epoch.fp32"]
    assert (step.value.median, step.ratio.median) == pytest.approx((200, 4))
    assert (epoch.value.median, epoch.ratio.median) == pytest.approx((100, 2)), "two steps in 80 ms"
    assert step.gflops == pytest.approx(3 * 4 * quiet.gflops / 0.020)
    assert step.share == pytest.approx(step.gflops / (2e-9 * side**3 / 0.5e-3))
    assert epoch.met is True and (epoch.target.bound, epoch.target.of) == (1.5, "ratio")
    parts = [row.value.median for key, row in rows.items() if key.startswith("train.share.")]
    whole = rows["train.share.loss_whole"]
    assert sum(parts) - whole.value.median == pytest.approx(100) and whole.target.bound == 3
    assert rows["train.decode_once"].value.n == 1


def test_every_backend_is_compared_with_the_naive_network(
    quiet: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "wanted", lambda _: [("torch", "fp32"), ("onnxruntime", "fp64")])
    script = {
        "naive": [50.0, 90.0],
        "torch fp32": [25.0, 30.0],
        "whole torch fp32": [50.0, 120.0],
        "end to end": [11.0, 24.0],
        "its network": [10.0, 20.0],
    }
    monkeypatch.setattr(inference, "interleave", Scripted(script))
    monkeypatch.setattr(quiet, "gflops", 2.0, raising=False)
    section = inference.section(quiet)
    rows = rows_of(section)
    keys = ("naive", "torch.fp32", "end_to_end.torch.fp32", "end_to_end", "overhead")
    assert set(rows) == {"inference." + key for key in keys}
    assert rows["inference.end_to_end.torch.fp32"].ratio.median == pytest.approx(0.375)
    assert any(note.startswith("onnxruntime fp64 left out: ") for note in section.notes)
    assert rows["inference.torch.fp32"].ratio.median == pytest.approx(2.5)
    assert rows["inference.torch.fp32"].gflops == pytest.approx(np.median([2 / 0.025, 2 / 0.030]))
    overhead = rows["inference.overhead"]
    assert overhead.value.median == pytest.approx(15) and overhead.target.bound == 15


def test_the_data_is_compared_with_what_a_step_takes(quiet: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        data, "interleave", Scripted({"step": [100.0], "decode": [20.0], "batch_mosaic": [4.0]})
    )
    rows = rows_of(data.section(quiet))
    assert rows["data.step"].value.median == pytest.approx(40) and rows["data.step"].ratio is None
    assert rows["data.decode"].ratio.median == pytest.approx(5)
    assert rows["data.batch_mosaic"].ratio.median == pytest.approx(25)


def test_post_processing_is_a_picture_s(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(post, "CANDIDATES", 100)
    monkeypatch.setattr(
        post, "interleave", Scripted({"loop": [12.0], "select": [4.0], "select_plain": [6.0]})
    )
    rows = rows_of(post.section(bench))
    assert rows["post.select"].ratio.median == pytest.approx(3) and rows["post.select"].met is True
    assert rows["post.select_plain"].met is False and rows["post.select_batch"].target is None
    inner = post._each(lambda: 64.0, 32)
    assert inner() == 2.0


def test_the_metrics_are_compared_with_pycocotools(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    script = {"cocoeval": [3000.0], "metrics": [500.0], "network": [80.0], "detector": [100.0]}
    monkeypatch.setattr(evaluation, "interleave", Scripted(script))
    rows = rows_of(evaluation.section(bench))
    assert rows["evaluation.metrics"].ratio.median == pytest.approx(6)
    assert rows["evaluation.detector"].value.median == pytest.approx(8 / 0.1), (
        "all 8 validation images"
    )
    assert rows["evaluation.detector"].ratio.median == pytest.approx(0.8)


def test_what_is_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inference, "pick_precision", lambda *_: "fp32")
    whole = Bench(dataclasses.replace(bench.settings, quick=False))
    pairs = inference.wanted(whole)
    whole.__exit__(None, None, None)
    assert {precision for _, precision in pairs} == {"fp32", "int8"}, (
        "bf16 would be emulated, fp16 needs a GPU"
    )
    assert {name for name, _ in pairs} == {"torch", "compile", "onnxruntime", "openvino"}
    assert not whole.folder.exists()


def test_sections_come_in_their_order_and_with_the_peak():
    assert chosen(["post"]) == ["post"]
    assert chosen(["inference", "train"]) == ["gemm", "train", "inference"]
    assert chosen([]) == ["gemm", "train", "inference", "data", "post", "evaluation", "video"]
    with pytest.raises(UserError, match="section 'trian' does not exist; did you mean 'train'"):
        chosen(["trian"])


def test_an_epoch_is_whole_whatever_ran_before(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    trainer = bench.trainer("fp32")
    step = data.step_clock(trainer, bench.batch)
    for _ in range(3):
        step()
    assert trainer.progress.step == 1
    counted: list[int] = []
    monkeypatch.setattr(
        trainer, "step", lambda batch, own=trainer.step: counted.append(1) or own(batch)
    )
    train.run_epoch(trainer)
    assert len(counted) == trainer.progress.step == trainer.batches.steps == 2
