"""Each example is run as its README says, and detects what `predict.py` detects."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from client_reference import SCORE, Reference, make_reference

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_BOX_DIFFERENCE = 0.05  # pixels
MAX_SCORE_DIFFERENCE = 1e-3
pytestmark = pytest.mark.slow

Detection = tuple[float, list[float], str]


def need(*packages: str) -> None:
    for package in packages:
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}: pip install {package}")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return make_reference(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def onnx_file(reference: Reference) -> Path:
    need("onnx", "onnxscript", "onnxruntime")
    from utils.engine.export import ExportOptions, export

    path = reference.weights.with_suffix(".onnx")
    export(str(reference.weights), "onnx", str(path), ExportOptions(opset=12))
    return path


def run(example: str, *words: object) -> str:
    """What a client prints, started in its own folder."""
    done = subprocess.run(
        [str(word) for word in words], cwd=EXAMPLES / example, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(text: str) -> dict[str, list[Detection]]:
    """The detections of each image in what a client printed."""
    found: dict[str, list[Detection]] = {}
    for line in text.splitlines():
        title = re.fullmatch(r"(.*): (\d+) objects", line)
        if title:
            found[title[1]] = detections = []
        else:
            score, *box, name = line.split(" ", 5)
            detections.append((float(score), [float(side) for side in box], name))
    return found


def check_client(example: str, words: Sequence[object], reference: Reference) -> None:
    """Compare a client with `predict.py`, and let it find nothing.

    Args:
        example: its folder.
        words: its command, without images and options.
        reference: what it must detect.
    """
    found = parse(run(example, *words, *reference.images, "--score", SCORE))
    assert list(found) == [str(image) for image in reference.images]
    for image, wanted in zip(reference.images, reference.detections, strict=True):
        got = found[str(image)]
        assert len(got) == len(wanted), image
        for score, box, name in got:  # two of nearly the same score may change places
            near = [
                item
                for item in wanted
                if item["name"] == name
                and item["score"] == pytest.approx(score, abs=MAX_SCORE_DIFFERENCE)
                and item["box"] == pytest.approx(box, abs=MAX_BOX_DIFFERENCE)
            ]
            assert near, (image, score, box, name)
    image = reference.images[0]
    assert run(example, *words, image, "--score", 1) == f"{image}: 0 objects\n"


def test_the_images_show_something(reference: Reference) -> None:
    counts = [len(detections) for detections in reference.detections]
    assert min(counts) > 0 and max(counts) > 20, counts


def test_python_with_onnxruntime(onnx_file: Path, reference: Reference, tmp_path: Path) -> None:
    check_client("python_onnxruntime", [sys.executable, "detect.py", onnx_file], reference)
    images = reference.images
    run("python_onnxruntime", sys.executable, "detect.py", onnx_file, *images, "--out", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in images}


def test_python_with_ncnn(reference: Reference) -> None:
    need("ncnn", "pnnx")
    from utils.engine.export import export

    path = reference.weights.with_suffix(".param")
    export(str(reference.weights), "ncnn", str(path))
    check_client("python_ncnn", [sys.executable, "detect.py", path], reference)


MISSING = re.compile(r"OpenCVConfig\.cmake|Could not find ORT_\w+|CMAKE_CXX_COMPILER")


@pytest.mark.parametrize("example", ["cpp_opencv", "cpp_onnxruntime"])
def test_cpp(example: str, onnx_file: Path, reference: Reference, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    configure = ["cmake", "-S", EXAMPLES / example, "-B", tmp_path]
    configured = subprocess.run(configure, capture_output=True, text=True)
    missing = MISSING.search(configured.stderr)
    if missing:
        pytest.skip(f"needs a C++ compiler, OpenCV and ONNX Runtime for C++: {missing[0]}")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    check_client(example, [tmp_path / "detect", onnx_file], reference)
