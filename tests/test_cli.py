"""The command lines as users meet them: what they print, write and return."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import compare as compare_cli
import eval as eval_cli
import export as export_cli
import nets.__main__ as nets_cli
import nets.attention.check as check_cli
import nets.cost_table as cost_cli
import predict as predict_cli
import train as train_cli
import utils.benchmark.__main__ as benchmark_cli
from utils.core.cli import run_command
from utils.core.images import write_image
from utils.engine.experiment import Result
from utils.visualization.video import VideoSink, open_video

ROOT = Path(__file__).resolve().parents[1]
KEYS = {"map50", "map50_95", "voc_ap50", "per_class", "images", "seconds", "params", "gflops"}
LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(command: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command line inside this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *map(str, arguments)])
    try:
        run_command(command.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
def test_train_evaluate_predict_in_an_empty_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A newcomer's three commands, the long ones as real processes, piped."""

    def run(*command: object) -> str:
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (
            "\r" not in done.stdout + done.stderr and "it/s" not in done.stderr
        )  # no bars in a pipe
        return done.stdout

    sizes = (
        "input_size=64",
        "data.shapes_train=16",
        "data.shapes_val=8",
        "train.batch_size=4",
        "train.optimizer=sgd",
        "train.epochs=2",
    )
    output = run(ROOT / "train.py", "--config", "shapes.yaml", *sizes, "device=cpu", "threads=1")
    assert (
        "epoch 1/2" in output
        and "eval.py" in output
        and "predict.py" in output
        and "mean" in output
    )
    assert call(eval_cli, monkeypatch, "--json", "numbers.json") == 0
    output = capsys.readouterr().out
    numbers = json.loads(Path("numbers.json").read_text())
    expected = json.loads(Path("runs/shapes/metrics.json").read_text())
    assert numbers.keys() >= KEYS and numbers["map50"] == expected["map50"] and "circle" in output
    run(ROOT / "predict.py", "--json", "list.json", "--score", 0)
    entries = json.loads(Path("list.json").read_text())
    assert len(entries) == 8 and entries[0].keys() == {"image", "width", "height", "detections"}
    assert entries[0]["detections"][0].keys() == {"box", "score", "class", "name"}
    assert len(list(Path("runs/predict").iterdir())) == 8


def test_predict_image_folder_and_video(trained: Result, monkeypatch: pytest.MonkeyPatch, capsys):
    weights = ("--weights", trained.run, "--score", 0, "--device", "cpu")
    rng = np.random.default_rng(0)
    for name in ("in/a.png", "in/sub/b.JPG"):
        write_image(name, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    Path("in/broken.png").write_bytes(b"no image")
    with VideoSink("in/clip.mp4", 12.5, (64, 48)) as sink:
        for _ in range(5):
            sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))

    image = ("--source", "in/a.png", "--out", "a.png", "--json", "a.json")
    assert call(predict_cli, monkeypatch, *weights, *image) == 0
    (entry,) = json.loads(Path("a.json").read_text())
    assert (entry["image"], entry["width"], entry["height"]) == ("in/a.png", 60, 40)
    assert Path("a.png").is_file()

    folder = ("--mode", "dir", "--source", "in", "--out", "out")
    assert call(predict_cli, monkeypatch, *weights, *folder) == 0
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")}
    assert written == {"a.png", "sub/b.JPG"}
    assert "broken.png" in capsys.readouterr().err

    video = ("--mode", "video", "--source", "in/clip.mp4", "--out", "out.mp4", "--json", "v.json")
    assert call(predict_cli, monkeypatch, *weights, *video) == 0
    with open_video("out.mp4") as written_video:
        assert written_video.fps == pytest.approx(12.5) and len(list(written_video)) == 5
    assert [entry["frame"] for entry in json.loads(Path("v.json").read_text())] == list(range(5))
    assert "5 frames" in capsys.readouterr().out


def test_predict_finds_the_mode_and_takes_overrides(
    trained: Result, monkeypatch: pytest.MonkeyPatch, capsys
):
    rng = np.random.default_rng(0)
    for name in ("in/a.png", "in/sub/b.png", "c.png"):
        write_image(name, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    with VideoSink("clip.mp4", 12.5, (64, 48)) as sink:
        sink.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    weights = ("--weights", trained.run, "device=cpu", "predict.score=0")

    both = (
        "--source",
        "in",
        "c.png",
        "predict.max_detections=3",
        "--save",
        "json",
        "--save",
        "txt",
    )
    assert call(predict_cli, monkeypatch, *both, "input_size=96", "--out", "o", *weights) == 0
    entries = json.loads(Path("o/detections.json").read_text())
    assert [entry["image"] for entry in entries] == ["a.png", "sub/b.png", "c.png"]
    assert {len(entry["detections"]) for entry in entries} == {3}
    assert len(list(Path("o/labels").rglob("*.txt"))) == 3

    video = ("--source", "clip.mp4", "--classes", "star", "ring", "--json", "v.json")
    assert call(predict_cli, monkeypatch, *video, *weights, "--out", "v.mp4") == 0
    (frame,) = json.loads(Path("v.json").read_text())
    assert {found["name"] for found in frame["detections"]} == {"star", "ring"}
    capsys.readouterr()

    option_wins = ("--source", "c.png", "--score", 1, "--json", "c.json")
    assert call(predict_cli, monkeypatch, *option_wins, *weights) == 0
    assert json.loads(Path("c.json").read_text())[0]["detections"] == []


def test_speed(trained: Result, monkeypatch: pytest.MonkeyPatch, capsys):
    from utils.engine import speed

    monkeypatch.setattr(speed.measure_fps, "__defaults__", (0.05,))
    assert call(predict_cli, monkeypatch, "--mode", "fps", "--weights", trained.run) == 0
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--plots", "--pictures"])
def test_eval_writes_numbers_and_plots(
    option: str, trained: Result, monkeypatch: pytest.MonkeyPatch, capsys
):
    outputs = ("--json", "n.json", option, "plots")
    arguments = ("--weights", trained.run, "--split", "train", *outputs, "eval.nms_iou=0.5")
    assert call(eval_cli, monkeypatch, *arguments) == 0
    numbers = json.loads(Path("n.json").read_text())
    assert numbers.keys() >= KEYS and numbers["images"] == 16
    assert Path("plots/confusion.png").is_file()
    assert numbers["per_class"]["circle"].keys() >= {"ap50", "ap50_95", "images", "objects"}
    assert "AP50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (eval_cli, ()),
        (predict_cli, ()),
        (export_cli, ("--format", "darknet", "--out", "a.weights")),
    ],
)
def test_threads_of_the_configuration_are_used(
    command: ModuleType,
    arguments: Sequence[str],
    trained: Result,
    monkeypatch: pytest.MonkeyPatch,
):
    torch.set_num_threads(2)
    assert call(command, monkeypatch, "--weights", trained.run, *arguments) == 0
    assert torch.get_num_threads() == 1


def test_resume_looks_for_runs_where_output_says(
    trained: Result, monkeypatch: pytest.MonkeyPatch, capsys
):
    arguments = ("--resume", trained.run.name, f"output={trained.run.parent}")
    assert call(train_cli, monkeypatch, *arguments) == 2
    assert "training is already finished" in capsys.readouterr().err
    assert call(train_cli, monkeypatch, "--resume", trained.run.name) == 2
    assert "no last.pt" in capsys.readouterr().err


def test_the_keys_are_explained(monkeypatch: pytest.MonkeyPatch, capsys):
    assert call(train_cli, monkeypatch, "--explain") == 0
    assert "train.batch_size" in capsys.readouterr().out


def bad_weights(name: str) -> str:
    Path(name).write_bytes(b"PK\x03\x04 cut off")
    return name


def voc(name: str) -> str:
    """A VOC dataset with a cat, read as one of dogs only."""
    write_image("voc/JPEGImages/a.png", np.zeros((20, 20, 3), np.uint8))
    corners = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (2, 2, 9, 9), strict=True)
    )
    for path, text in (
        (
            "voc/Annotations/a.xml",
            f"<annotation><object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>",
        ),
        ("voc/ImageSets/Main/train.txt", "a\n"),
    ):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)
    Path("dogs.yaml").write_text("data: {format: voc, root: voc, val: train, classes: [dog]}\n")
    return "dogs.yaml"


MISTAKES: list[tuple[ModuleType, Callable[[Result], list[object]], list[str]]] = [
    (
        train_cli,
        lambda run: ["--config", "shaps.yaml"],
        ["shaps.yaml", "did you mean 'shapes.yaml'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epoch=3"],
        ["epoch", "did you mean 'train.epochs'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "trian.epochs=3"],
        ["trian", "did you mean 'train'"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "epochs"], ["'epochs'", "KEY=VALUE"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epochs=many"],
        ["train.epochs", "integer", "many"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epochs=0"],
        ["train.epochs", "expected 'auto' or 1 to 1,000,000, got 0"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "train=3"], ["train", "3"]),
    (train_cli, lambda run: ["--config", "shapes.yaml", "train.epochs.x=3"], ["train.epochs"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=100"],
        ["input_size", "multiples of 32", "100"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=32", "train.batch_size=1"],
        ["steps of 1 image with input_size=[32, 32]", "single value", "train.batch_size"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=32", "data.shapes_train=1"],
        ["steps of 1 image with input_size=[32, 32]", "single value"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "device=cuda:7"],
        ["device=cuda:7", "device=auto"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "device=tpu"], ["device", "tpu"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "device=cpu", "precision=fp16"],
        ["precision=fp16"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "phi=cbma"],
        ["cbma", "did you mean 'cbam'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "weights=no.pt"],
        ["no.pt", "no such file"],
    ),
    (
        train_cli,
        lambda run: ["--config", "voc_cbam.yaml"],
        ["datasets/VOCdevkit", "data.root=", "data.download=true"],
    ),
    (train_cli, lambda run: ["--config", "neu_det.yaml"], ["datasets/NEU-DET", "data.root="]),
    (train_cli, lambda run: ["--config", "coco.yaml"], ["datasets/coco", "data.root"]),
    (train_cli, lambda run: ["--config", voc("cat")], ["a.xml", "cat", "dog"]),
    (train_cli, lambda run: ["--resume", "runs/none"], ["--resume runs/none", "last.pt"]),
    (train_cli, lambda run: ["--resume", run.run], ["training is already finished"]),
    (train_cli, lambda run: ["--resume", run.run, "train.lr=9"], ["--resume", "train.lr"]),
    (eval_cli, lambda run: [], ["train first", "--weights"]),
    (eval_cli, lambda run: ["--weights", "none.pt"], ["--weights none.pt", "no such file"]),
    (eval_cli, lambda run: ["--weights", bad_weights("b.pt")], ["b.pt", "not readable"]),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "eval.nms=1"],
        ["eval.nms", "did you mean 'eval.nms_iou'"],
    ),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "phi=se"],
        ["best.pt", "phi=se", "do not fit the network"],
    ),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "--config", "neu_det.yaml"],
        ["datasets/NEU-DET"],
    ),
    (predict_cli, lambda run: ["--source", "a.png"], ["train first", "--weights"]),
    (
        predict_cli,
        lambda run: ["--source", "a.png", "--weights", run.run],
        ["--source a.png", "no such file"],
    ),
    (
        predict_cli,
        lambda run: ["--source", bad_weights("b.png"), "--weights", run.run],
        ["b.png", "decode"],
    ),
    (
        predict_cli,
        lambda run: ["--source", "a", "b", "--mode", "dir", "--weights", run.run],
        ["takes one"],
    ),
    (
        predict_cli,
        lambda run: ["--mode", "video", "--source", "a.mp4", "--weights", run.run],
        ["a.mp4"],
    ),
    (predict_cli, lambda run: ["--weights", run.run, "--score", 2], ["--score", "0 to 1"]),
    (predict_cli, lambda run: ["--weights", run.run, "--device", "cuda:7"], ["device=cuda:7"]),
]


@pytest.mark.parametrize(("command", "arguments", "words"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: ModuleType,
    arguments: Callable[[Result], list[object]],
    words: list[str],
    trained: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    given = arguments(trained)
    capsys.readouterr()
    assert call(command, monkeypatch, *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    missing = [word for word in words if word not in error.replace("\\", "/")]
    assert not missing, error
    assert not Path("runs").exists()


WORDS: list[tuple[ModuleType, list[str], str]] = [
    (train_cli, [], "one of the arguments --config --resume --explain is required; see train.py"),
    (train_cli, ["--config", "a", "--resume", "b"], "--resume: not allowed with argument --config"),
    (train_cli, ["--confg", "a"], "unknown option --confg; did you mean '--config'?"),
    (train_cli, ["--config"], "--config: expected one argument"),
    (train_cli, ["--config", ""], "--config: expected a value, got ''"),
    (train_cli, ["--config="], "--config: expected a value, got ''"),
    (train_cli, ["--resume", "a", "--x" * 10**5], "unknown option --x--x"),
    (train_cli, ["--explain", "seed=1"], "--explain takes no KEY=VALUE"),
    (eval_cli, ["--weights", ""], "--weights: expected a value, got ''"),
    (eval_cli, ["--wieghts=a"], "unknown option --wieghts; did you mean '--weights'?"),
    (eval_cli, ["--json", "a.json", "-x"], "unrecognized arguments: -x"),
    (predict_cli, ["--source", "a", ""], "a: expected a value, got ''"),
    (predict_cli, ["--mode", "vid"], "--mode: invalid choice: 'vid'"),
    *[
        (predict_cli, [option, value], f"{option}: expected a number from 0 to 1, got '{value}'")
        for option in ("--score", "--nms-iou")
        for value in ("nan", "-1", "2", "x", "inf", "1e999")
    ],
    *[
        (export_cli, ["--format", "onnx", "--opset", value], "--opset: expected an integer from 1")
        for value in ("abc", "-1", "1.5", str(10**30), "9" * 5000)
    ],
    (compare_cli, ["--config"], "--config: expected at least one argument"),
    (compare_cli, ["--phi"], "--phi: expected at least one argument"),
    (nets_cli, ["--classes", "0"], "--classes: expected an integer from 1 to 100,000, got '0'"),
    (cost_cli, ["--size", "31"], "--size: expected a multiple of 32 from 32 to 4,096, got '31'"),
    (cost_cli, ["--rounds", "0"], "--rounds: expected an integer from 1"),
    (cost_cli, ["--threads", "-1"], "--threads: expected an integer from 0 to 1,024, got '-1'"),
    (benchmark_cli, ["--seconds", "nan"], "--seconds: expected a number from 0.001 to 100,000"),
    (benchmark_cli, ["--rounds", "0"], "--rounds: expected an integer from 1"),
    (check_cli, ["se", "--channels", "0"], "--channels: expected an integer from 1 to 4,096"),
    (check_cli, ["se", "reduction=[1"], "reduction=: not valid YAML"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), WORDS)
def test_wrong_words_are_one_line(
    command: ModuleType,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    assert call(command, monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1 and len(error) < 400


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.core.config.load_config", interrupted)
    assert call(train_cli, monkeypatch, "--config", "shapes.yaml") == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    "command",
    [
        "eval",
        pytest.param("train", marks=pytest.mark.slow),
        pytest.param("predict", marks=pytest.mark.slow),
    ],
)
def test_a_machine_without_libgl_is_told_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch
):
    Path("fake").mkdir()
    Path("fake/cv2.py").write_text(f"raise ImportError({LIBGL!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(Path("fake").resolve()))
    arguments = ["--config", "shapes.yaml"] if command == "train" else ["--weights", "a.pt"]
    done = subprocess.run(
        [sys.executable, ROOT / f"{command}.py", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr and "pip install opencv-python-headless" in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("No module named 'pycocotools'", name="pycocotools"),
            "pip install -r requirements.txt",
        ),
        (
            ImportError("libgthread-2.0.so.0: cannot open shared object file: No such file"),
            "opencv-python-headless",
        ),
    ],
)
def test_a_library_that_is_missing(error: ImportError, words: str, capsys):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    captured = capsys.readouterr().err
    assert end.value.code == 2 and words in captured and captured.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'utils.engine'", name="utils.engine"),
        ModuleNotFoundError("No module named 'utils.nothing'", name="utils.nothing"),
        RuntimeError("a mistake in the program"),
    ],
)
def test_a_mistake_in_the_program_is_not_hidden(error: Exception):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_command(main)


def test_help_answers_at_once_without_the_libraries(monkeypatch: pytest.MonkeyPatch, capsys):
    for name in ("cv2", "torch", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    for command in (train_cli, eval_cli, predict_cli, export_cli):
        assert call(command, monkeypatch, "--help") == 0
        assert "examples:" in capsys.readouterr().out


def test_any_class_name_can_be_printed(tmp_path: Path):
    code = "from utils.core.cli import run_command; run_command(lambda: print('\\u72d7 done'))"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and done.stdout == "\\u72d7 done\n"
