"""From a configuration to a finished run, and on after a kill."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from old_files import with_old_keys
from torch import Tensor

from nets import load_model
from nets.io import checkpoints
from nets.io.darknet import write_darknet
from nets.io.weights import read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.folder_lock import locked
from utils.core.schema import Config
from utils.data.checks import DatasetReport
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.engine.datasets import open_datasets
from utils.engine.experiment import Result, new_detector, resume, train
from utils.engine.runs import BEST, LAST
from utils.engine.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
PLOTS = ("curves.png", "pr.png", "confusion.png", "batch.png", "predictions.png")
LONGER = (  # 8 steps per epoch, and dropout, whose random numbers must continue too
    "device=cpu",
    "threads=1",
    "input_size=64",
    "data.shapes_train=16",
    "data.shapes_val=8",
    "train.epochs=2",
    "train.batch_size=2",
    "train.optimizer=sgd",
    "augment.mixup=0.3",
    "augment.close_mosaic=1",
    "phi={feat1: {name: mhsa, dropout: 0.1}}",
)
TIMEOUT = 120  # seconds until a started training counts as stuck


def weights(path: Path) -> dict[str, Tensor]:
    return checkpoints.load(path)["model"]


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_a_run_is_complete(trained: Result):
    # hidden: the lock, and exported models that other tests keep there
    names = {path.name for path in trained.run.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", BEST, LAST, "results.csv", "metrics.json", *PLOTS}
    for name in PLOTS:
        assert (trained.run / name).read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((trained.run / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and all(
        math.isfinite(float(row["loss"])) for row in rows
    )
    numbers = json.loads((trained.run / "metrics.json").read_text())
    assert numbers["map50_95"] == pytest.approx(
        float(max(rows, key=lambda row: float(row["map50_95"]))["map50_95"]), abs=1e-6
    )


def test_config_yaml_alone_repeats_the_run(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = load_config(trained.run / "config.yaml")
    assert config == Config.model_validate(checkpoints.load(trained.run / BEST)["config"])
    again = train(config)
    assert again.run == trained.run.with_name(f"{trained.run.name}-2")
    assert_equal(weights(again.run / BEST), weights(trained.run / BEST))
    assert_equal(weights(again.run / LAST), weights(trained.run / LAST))


# resume


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        load_config("shapes.yaml", [*LONGER, f"output={tmp_path_factory.mktemp('undisturbed')}"])
    ).run


def rows_without_time(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((run / "results.csv").open()))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def train_and_kill(ready: Callable[[str], bool], *overrides: str) -> dict[str, Any]:
    """Start train.py here, kill it when `ready(its output)`, and return the saved progress."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--config",
        "shapes.yaml",
        *LONGER,
        *overrides,
    ]
    log, end = Path("log.txt"), time.monotonic() + TIMEOUT
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=buffered) as process,
    ):
        try:
            while not ready(log.read_text()):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.005)
        finally:
            process.kill()
    return checkpoints.load(Path("runs/shapes") / LAST)["training"]["progress"]


def assert_ended_alike(run: Path, other: Path, assert_same: Callable) -> None:
    """The same weights, average, optimizer state and results."""
    for name in (LAST, BEST):
        assert_same(checkpoints.load(run / name), checkpoints.load(other / name), name)
    assert rows_without_time(run) == rows_without_time(other)


@pytest.mark.slow
def test_a_training_killed_inside_an_epoch_goes_on_bit_for_bit(
    undisturbed: Path, assert_same: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/shapes")
    progress = train_and_kill(lambda output: (run / LAST).exists(), "train.save_minutes=1e-6")
    assert 0 < 8 * progress["epoch"] + progress["step"] < 16
    command = [sys.executable, str(ROOT / "train.py"), "--resume", str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"in epoch {progress['epoch'] + 1}, after step {progress['step']}" in done.stdout
    assert_ended_alike(run, undisturbed, assert_same)
    ends = [json.loads((folder / "metrics.json").read_text()) for folder in (run, undisturbed)]
    assert ends[0]["map50_95"] == ends[1]["map50_95"]
    with pytest.raises(UserError, match="training is already finished"):
        resume(run)


@pytest.mark.slow
def test_a_training_killed_between_epochs_goes_on_bit_for_bit(
    undisturbed: Path, assert_same: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    progress = train_and_kill(
        lambda output: "epoch 1/2" in output
    )  # the line must not wait in a buffer
    assert progress["epoch"] == 1 and progress["step"] == 0
    run = Path("runs/shapes")
    assert resume(run).run == run
    assert_ended_alike(run, undisturbed, assert_same)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_bit_for_bit(
    name: str,
    code: int,
    undisturbed: Path,
    assert_same: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/shapes")
    command = [sys.executable, str(ROOT / "train.py"), "--config", "shapes.yaml", *LONGER]
    with subprocess.Popen(
        [*command, "train.save_minutes=1e-6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (run / LAST).exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(getattr(signal, name))
        output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    assert f"continue with: python train.py --resume {run}" in output
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert errors.splitlines()[-1] == said and "Traceback" not in errors
    assert not list(run.glob(".*.part*"))
    resume(run)
    assert_ended_alike(run, undisturbed, assert_same)


def test_auto_stays_in_the_configuration_and_the_run_has_numbers(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name, value in (("STEPS", 4), ("MIN_EPOCHS", 1), ("SMALL_BATCH_SIZE", 8)):
        monkeypatch.setattr(f"utils.engine.settle.{name}", value)
    config = tiny("train.batch_size=auto", "train.epochs=auto", "loss.class_weights=balanced")
    run = train(config).run
    assert "2 epochs, batch size 8, 2 steps per epoch" in capsys.readouterr().out
    assert load_config(run / "config.yaml") == config
    saved = checkpoints.load(run / LAST)["config"]["train"]
    assert (saved["epochs"], saved["batch_size"], saved["accumulate"]) == (2, 8, 1)
    assert resume(run, {"train.epochs": 3}).run == run


def test_a_run_has_one_owner(trained: Result):
    message = r"another train\.py is working there .*process"
    with locked(trained.run, "train.py is working", ""), pytest.raises(UserError, match=message):
        resume(trained.run)


def test_what_a_killed_process_left_is_removed(tiny: Callable[..., Config]):
    run = train(tiny("train.epochs=1")).run
    left = run / f".{'0' * 16}.part.pt"
    left.write_bytes(b"half")
    resume(run, {"train.epochs": 2})
    assert not left.exists()


def test_a_finished_run_can_be_prolonged(tiny: Callable[..., Config]):
    run = train(tiny("train.epochs=1")).run
    assert resume(run, {"train.epochs": 2, "train.eval_every": 1}).run == run
    assert [row["epoch"] for row in rows_without_time(run)] == ["1", "2"]
    assert load_config(run / "config.yaml").train.epochs == 2
    with pytest.raises(UserError, match=r"train\.epochs=1, but 2 epochs are finished"):
        resume(run, {"train.epochs": 1})


@pytest.mark.parametrize("key", ["seed", "train.lr", "augment.mosaic", "input_size", "phi"])
def test_a_resumed_run_cannot_become_another_one(key: str, trained: Result):
    with pytest.raises(UserError, match=f"--resume with {key}="):
        resume(trained.run, {key: 1})


def test_a_training_killed_while_its_report_is_made_can_be_finished(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("utils.engine.experiment.evaluate_detector", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny("train.epochs=1"))
    run = Path("runs/shapes")
    best = weights(run / BEST)
    assert (
        resume("shapes").run == run
        and (run / "metrics.json").is_file()
        and (run / "predictions.png").is_file()
    )
    assert_equal(weights(run / BEST), best)


def test_ctrl_c_says_how_to_go_on(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys
):
    original = Trainer.step

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.progress.epoch == 1:
            raise KeyboardInterrupt  # in the middle of a step, whose state cannot be saved
        return original(self, batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    assert checkpoints.load(Path("runs/shapes") / LAST)["training"]["progress"]["step"] == 0
    assert f"train.py --resume {Path('runs/shapes')}" in capsys.readouterr().out


def save_weights_only(run: Path) -> None:
    checkpoints.save(run / LAST, checkpoints.describe(YOLOv4Tiny(1), Config(), ["a"]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda run: None, r"no last\.pt"),
        (lambda run: (run / LAST).write_bytes(b"PK\x03\x04 cut off"), r"last\.pt: not readable"),
        (lambda run: torch.save({"a": 1}, run / LAST), "not a checkpoint of this project"),
        (save_weights_only, "weights only"),
    ],
)
def test_what_cannot_be_resumed(
    make: Callable[[Path], object], words: str, tiny: Callable[..., Config]
):
    run = Path("runs/a")
    tiny()
    run.mkdir(parents=True)
    make(run)
    with pytest.raises(UserError, match=words):
        resume(run)


# unusual data


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def samples(objects: Sequence[Sequence[tuple[float, ...]]]) -> list[Sample]:
    """A drawn image of 70x50 for each list of (x1, y1, x2, y2, label)."""
    made = []
    for index, rows in enumerate(objects):
        table = np.array(rows, np.float32).reshape(-1, 5)
        made.append(
            Sample(
                path=Path(f"{index}.png"),
                width=70,
                height=50,
                boxes=table[:, :4],
                labels=table[:, 4].astype(np.int64),
                difficult=np.zeros(len(table), np.bool_),
                crowd=np.zeros(len(table), np.bool_),
                draw=partial(noise, index),
            )
        )
    return made


SMALL, LARGE, POINT = (5, 5, 15, 20, 0), (0, 0, 70, 50, 0), (30, 30, 31, 31, 0)


@pytest.mark.parametrize(
    ("objects", "names", "keys"),
    [
        ([[SMALL], [], [LARGE, SMALL], [], [], []], ("a", "b"), ()),
        ([[], [], [], []], ("a", "b"), ()),
        ([[SMALL], [LARGE], [SMALL, LARGE], [SMALL]], ("only",), ()),
        ([[SMALL], [POINT], [(*LARGE[:4], 1)]], ("a", "b"), ("train.batch_size=64",)),
        ([[POINT, POINT, LARGE]], ("a", "b"), ("augment.mixup=1",)),
    ],
    ids=["some-empty", "no-object", "one-class", "batch-beyond-data", "one-image"],
)
def test_unusual_data_gives_no_nan(
    objects,
    names: tuple[str, ...],
    keys: tuple[str, ...],
    tiny: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
):
    made = samples(objects)

    def load_dataset(*args: object, **options: object) -> DetectionDataset:
        report = DatasetReport()
        report.summarize(made, names)
        return DetectionDataset(made, (64, 64), report=report, class_names=names)

    monkeypatch.setattr("utils.engine.datasets.load_dataset", load_dataset)
    result = train(tiny(*keys))
    rows = list(csv.DictReader((result.run / "results.csv").open()))
    assert all(
        math.isfinite(float(row[key]))
        for row in rows
        for key in ("loss", "box", "objectness", "cls")
    )
    for name in (BEST, LAST):
        assert all(tensor.isfinite().all() for tensor in weights(result.run / name).values())
    numbers = json.loads(
        (result.run / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert (numbers["map50"] is None) == (not any(objects)) and list(numbers["per_class"]) == list(
        names
    )
    assert "nan" not in result.evaluation.metrics.table()
    assert (result.run / "predictions.png").is_file()


# mistakes


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("precision=fp16", "needs a GPU"),
        ("device=cuda:7", "CUDA devices"),
        ("phi=cbm", "did you mean 'cbam'"),
        ("attention.at=[feat3]", "did you mean 'feat"),
        ("weights=missing.pt", r"missing\.pt: no such file"),
    ],
)
def test_mistakes_are_told_before_the_data_is_read(
    key: str, words: str, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    def read(*args: object) -> None:
        pytest.fail("the data was read first")

    monkeypatch.setattr("utils.engine.experiment.open_datasets", read)
    with pytest.raises(UserError, match=words):
        train(tiny(*(("phi=se",) if "attention" in key else ()), key))
    assert not Path("runs").exists()


def test_pretrained_weights_are_the_start(trained: Result, tiny: Callable[..., Config], capsys):
    result = train(
        tiny(
            f"weights={trained.run / BEST}", "train.epochs=1", "train.lr=1e-12", "train.ema_decay=0"
        )
    )
    assert "(100%)" in capsys.readouterr().out
    first, second = weights(trained.run / BEST), weights(result.run / LAST)
    same = [name for name in first if name.endswith("conv.weight")]
    assert same and all(torch.allclose(first[name], second[name], atol=1e-6) for name in same)


def test_new_attention_does_not_change_pretrained_weights(
    trained: Result, tiny: Callable[..., Config]
):
    plain = load_model(trained.run / BEST, precision="fp32", device="cpu")
    config = tiny(f"weights={trained.run / BEST}", "phi=se")
    dataset = open_datasets(config).train
    detector = new_detector(config, dataset, read_weights(trained.run / BEST))
    assert detector.config.attention.init == "identity"
    images = torch.rand(2, 3, 64, 64)
    for ours, expected in zip(
        detector.network.eval()(images), plain.network.eval()(images), strict=True
    ):
        assert torch.equal(ours, expected)
    asked = tiny(f"weights={trained.run / BEST}", "phi=se", "attention.init=paper")
    made = new_detector(asked, dataset, read_weights(trained.run / BEST))
    assert made.config.attention.init == "paper"


def test_new_blocks_that_erase_pretrained_features_are_named(
    trained: Result, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
):
    dataset = open_datasets(tiny()).train
    warning = (
        "warning: new blocks that erase the pretrained features (attention.init=identity keeps "
        "them): attention.feat1, attention.head16\n"
    )
    phi = "phi={feat1: lka, feat2: se, upsample: gct, head16: shuffle}"
    for init, warned in (("paper", True), ("identity", False)):
        config = tiny(f"weights={trained.run / BEST}", phi, f"attention.init={init}")
        new_detector(config, dataset, read_weights(trained.run / BEST))
        out = capsys.readouterr().out
        assert (warning in out) == warned
        assert (
            "(attention.init=identity keeps them): attention.feat1, attention.head16" in out
        ) == warned


def test_attention_of_the_weights_file_starts_as_it_was_trained(tiny: Callable[..., Config]):
    first = train(tiny("phi=se", "train.epochs=1")).run / BEST
    config = tiny(f"weights={first}", "phi=se")
    detector = new_detector(config, open_datasets(config).train, read_weights(first))
    assert detector.config.attention.init == "paper"
    before, after = weights(first), detector.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def darknet_weights(tmp_path: Path) -> Path:
    """A Darknet file for the six classes of the embedded data, with heads that move the boxes."""
    network = YOLOv4Tiny(6)
    for predict in (network.predict32, network.predict16):
        torch.nn.init.normal_(predict.weight, std=0.3)
    path = tmp_path / "six.weights"
    write_darknet(network, path)
    return path


def test_heads_that_fit_keep_their_box_coder(
    darknet_weights: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
):
    """The default configuration decodes another way than Darknet: the file's way counts."""
    config = tiny(f"weights={darknet_weights}", "train.epochs=1")
    dataset = open_datasets(config).train
    capsys.readouterr()
    detector = new_detector(config, dataset, read_weights(darknet_weights))
    output = capsys.readouterr().out
    assert "model.new_coords=false" in output and str(darknet_weights) in output
    assert len(output.splitlines()) == 2, "what is taken from the file, and what matched"
    expected = load_model(
        darknet_weights, device="cpu", precision="fp32", input_size=config.input_size
    )
    canvases = torch.from_numpy(dataset.canvases(range(4)))
    boxes, scores = detector.backend(canvases)
    expected_boxes, expected_scores = expected.backend(canvases)
    torch.testing.assert_close(boxes, expected_boxes)
    torch.testing.assert_close(scores, expected_scores)

    run = train(config).run
    trained_detector = load_model(run)
    coder, expected_coder = trained_detector.network.coder, expected.network.coder
    assert (coder.new_coords, coder.scale_x_y) == (False, expected_coder.scale_x_y)
    assert coder.masks == expected_coder.masks
    assert torch.equal(coder.anchors, expected_coder.anchors)
    assert load_config(run / "config.yaml") == config, "what was asked for, to be repeated"


def test_another_box_coder_than_that_of_heads_that_fit_is_refused(
    darknet_weights: Path, tiny: Callable[..., Config]
):
    config = tiny(f"weights={darknet_weights}", "model.scale_x_y=1.5")
    with pytest.raises(UserError, match=r"six\.weights.*model\.scale_x_y") as caught:
        train(config)
    assert "\n" not in str(caught.value) and not Path("runs").exists()


def test_heads_for_other_classes_leave_the_box_coder_alone(
    tmp_path: Path, tiny: Callable[..., Config]
):
    write_darknet(YOLOv4Tiny(5), tmp_path / "five.weights")
    config = tiny()
    dataset = open_datasets(config).train
    detector = new_detector(config, dataset, read_weights(tmp_path / "five.weights"))
    assert detector.config == config and detector.network.coder.new_coords
    plain = new_detector(config, dataset)
    assert torch.equal(detector.network.coder.anchors, plain.network.coder.anchors)


def test_a_run_of_an_earlier_version_is_resumed(trained: Result, tmp_path: Path):
    """Its configuration has the old names of keys."""
    run = tmp_path / "old"
    shutil.copytree(trained.run, run)
    (run / "metrics.json").unlink()
    saved = checkpoints.load(run / LAST)
    saved["config"] = with_old_keys(load_config(run / "config.yaml"))
    checkpoints.save(run / LAST, saved)
    result = resume(run)
    assert result.run == run
    assert result.evaluation.metrics.map50 == trained.evaluation.metrics.map50
