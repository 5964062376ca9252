"""The layout of ARCHITECTURE.md: imports run one way, and calls go down to loss and boxes."""

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
import torch

from nets.inference import detector as detector_module
from nets.losses.yolo_loss import YoloLoss
from utils.core.schema import Config
from utils.engine.experiment import Result, train
from utils.engine.prediction import PredictOptions, predict

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (  # each may import those above it in this list
    "utils.core",
    "nets",
    "utils.data",
    "utils.metrics",
    "utils.visualization",
    "utils.engine",
)
TOP = ("utils.compare", "utils.benchmark")  # import all layers, and not each other


COMPARE = ("statistics", "planning", "trials", "foreign", "analysis", "reporting")  # likewise


def package_of(module: str) -> str:
    """`utils.data.readers.voc` -> `utils.data`; `nets.io.onnx` -> `nets`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "utils" else parts[0]


def imported_modules(path: Path) -> Iterator[str]:
    """The project's modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module == "utils":
            names = [f"utils.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] in ("nets", "utils"))


@pytest.mark.parametrize("package", [*LAYERS, *TOP])
def test_imports_run_one_way(package: str):
    allowed = set(LAYERS if package in TOP else LAYERS[: LAYERS.index(package)])
    # `__main__.py` is a command line, which may import everything
    files = [
        path
        for path in (ROOT / package.replace(".", "/")).rglob("*.py")
        if path.name != "__main__.py"
    ]
    assert files
    for path in files:
        used = {package_of(module) for module in imported_modules(path)} - {package}
        assert used <= allowed, path


@pytest.mark.parametrize("part", COMPARE)
def test_imports_inside_compare_run_one_way(part: str):
    folder = ROOT / "utils" / "compare"
    files = [*folder.glob(f"{part}.py"), *folder.glob(f"{part}/*.py")]
    assert files
    for path in files:
        parts = [module.split(".") for module in imported_modules(path)]
        used = {names[2] for names in parts if names[:2] == ["utils", "compare"]}
        assert used <= set(COMPARE[: COMPARE.index(part) + 1]), path


def calling_packages() -> list[str]:
    """The packages on the way from the test to the caller, neighbors joined."""
    modules = [frame.frame.f_globals["__name__"] for frame in reversed(inspect.stack())]
    ours = [module for module in modules if module.split(".")[0] in ("nets", "utils")]
    return [name for name, _ in groupby(".".join(module.split(".")[:2]) for module in ours)]


def test_a_training_calls_down_to_the_loss(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    class Reached(Exception):
        pass

    ways = []

    def forward(*args: object) -> None:
        ways.append(calling_packages())
        raise Reached

    monkeypatch.setattr(YoloLoss, "forward", forward)
    with pytest.raises(Reached):
        train(tiny())
    assert ways == [["utils.engine"]]  # which calls the loss itself


def test_a_prediction_calls_down_to_the_boxes(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ways = []
    suppress = detector_module.non_max_suppression

    def spy(*args: object) -> list:
        ways.append(calling_packages())
        return suppress(*args)

    monkeypatch.setattr(detector_module, "non_max_suppression", spy)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    predict(PredictOptions(weights=str(trained.run)))
    assert ways and all(way == ["utils.engine", "nets.inference"] for way in ways)
