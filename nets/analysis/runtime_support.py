"""Which runtimes take which attention blocks: each is exported, run, and compared with PyTorch.

A block is placed in a network at the sites of `attention.at`, with random weights and open gates:
one at its start would pass without computing anything.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import torch
from torch import Tensor

from nets.attention import Spec
from nets.attention.conformance import open_gates
from nets.io.exported import INPUT, OUTPUTS, export_pipeline, runtime_errors
from nets.io.formats import FORMATS
from nets.loading import load_model
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError, nearest, shorten
from utils.core.schema import Config

CLASSES = ("a", "b", "c")
MAX_BOX_DIFFERENCE = 1e-3  # pixels
MAX_SCORE_DIFFERENCE = 1e-4

Outputs = tuple[Tensor, Tensor]  # boxes, scores


@dataclass(frozen=True)
class Runtime:
    """A program that runs exported files.

    Attributes:
        title: for the table.
        packages: what must be installed, by import; the first has the version.
        suffix: of the format in `FORMATS`.
        run: computes boxes and scores of a file, from uint8 `(1, H, W, 3)`.
        takes_all: every block must run; else the converter may refuse some.
    """

    title: str
    packages: tuple[str, ...]
    suffix: str
    run: Callable[[Path, Tensor], Outputs]
    takes_all: bool = True

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed, as pip names them."""
        absent = [name for name in self.packages if not importlib.util.find_spec(name)]
        return [name.replace("_", "-").replace("cv2", "opencv-python") for name in absent]

    @property
    def version(self) -> str:
        """The version that is installed."""
        return str(importlib.import_module(self.packages[0]).__version__)


@dataclass(frozen=True)
class Verdict:
    """What became of a block in a runtime.

    Attributes:
        box: the largest difference from PyTorch, pixels; None: it does not run.
        score: likewise, of scores.
        reason: why it does not run.
    """

    box: float | None = None
    score: float | None = None
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the block runs, and gives what PyTorch gives."""
        if self.box is None or self.score is None:
            return False
        return self.box <= MAX_BOX_DIFFERENCE and self.score <= MAX_SCORE_DIFFERENCE

    def __str__(self) -> str:
        if self.box is None or self.score is None:
            return f"refused: {self.reason}"
        return f"differs by {self.box:.2g} px in boxes, {self.score:.2g} in scores"


def _backend(name: str, path: Path, canvases: Tensor) -> Outputs:
    return load_model(path, device="cpu", precision="fp32", backend=name).backend(canvases)


def _opencv(path: Path, canvases: Tensor) -> Outputs:
    images = canvases.permute(0, 3, 1, 2).float().div(255).numpy()
    with runtime_errors(path, "OpenCV cannot run it"):
        net = cv2.dnn.readNetFromONNX(str(path))
        net.setInput(images, INPUT)
        boxes, scores = net.forward(list(OUTPUTS))
    return torch.from_numpy(boxes), torch.from_numpy(scores)


ONNX = ("onnx", "onnxscript")  # needed to export
RUNTIMES = {
    "onnxruntime": Runtime(
        "ONNX Runtime", ("onnxruntime", *ONNX), ".onnx", partial(_backend, "onnxruntime")
    ),
    "openvino": Runtime("OpenVINO", ("openvino", *ONNX), ".onnx", partial(_backend, "openvino")),
    "opencv": Runtime("OpenCV", ("cv2", *ONNX), ".onnx", _opencv),
    "ncnn": Runtime("ncnn", ("ncnn", "pnnx"), ".param", partial(_backend, "ncnn"), False),
    "litert": Runtime(
        "LiteRT",
        ("ai_edge_litert", "litert_torch"),
        ".tflite",
        partial(_backend, "litert"),
        False,
    ),
}


def pick_runtimes(names: Sequence[str]) -> dict[str, Runtime]:
    """Return the runtimes of these names; none: all.

    Raises:
        UserError: there is no such runtime.
    """
    for name in names:
        if name not in RUNTIMES:
            raise UserError(f"--runtimes {shorten(name)}: no such runtime{nearest(name, RUNTIMES)}")
    return {name: RUNTIMES[name] for name in names or RUNTIMES}


def check_block(block: Spec, runtimes: Mapping[str, Runtime], size: int) -> dict[str, Verdict]:
    """Export a network with a block, and run it.

    Args:
        block: what `phi` accepts; "none" for the network alone.
        runtimes: by name; those that are not installed are left out.
        size: side of the input, pixels; a multiple of 32.

    Returns:
        What became of it, by the names of `runtimes`.

    Raises:
        UserError: there is no such block.
    """
    torch.manual_seed(0)
    config = make_config({"phi": block, "input_size": size})
    network = build_model(config, len(CLASSES)).eval().requires_grad_(False)
    open_gates(network)
    canvases = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    expected = export_pipeline(network, config).detect(canvases)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network")
        write = cache(partial(_write, network, config, path))
        return {
            name: _verdict(runtime, write, canvases, expected)
            for name, runtime in runtimes.items()
            if not runtime.missing
        }


def _write(network: YOLOv4Tiny, config: Config, path: Path, suffix: str) -> Path | str:
    """Write a file; return it, or why it cannot be written."""
    path = path.with_suffix(suffix)
    try:
        FORMATS[suffix].write(network, config, CLASSES, path)
    except UserError as error:
        return _reason(error, path)
    return path


def _verdict(
    runtime: Runtime,
    write: Callable[[str], Path | str],
    canvases: Tensor,
    expected: Outputs,
) -> Verdict:
    path = write(runtime.suffix)
    if isinstance(path, str):
        return Verdict(reason=path)
    try:
        outputs = runtime.run(path, canvases)
    except UserError as error:
        return Verdict(reason=_reason(error, path))
    pairs = zip(outputs, expected, strict=True)
    box, score = (float((ours - theirs).abs().max()) for ours, theirs in pairs)
    return Verdict(box, score)


def _reason(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def runtime_page(
    verdicts: Mapping[str, Mapping[str, Verdict]], runtimes: Mapping[str, Runtime], command: str
) -> str:
    """Return a Markdown page: how it was measured, the table, and why blocks do not run.

    Args:
        verdicts: by the blocks' names, then as `check_block` returns them.
        runtimes: what was asked for.
        command: that printed the page.
    """
    here = {name: runtime for name, runtime in runtimes.items() if not runtime.missing}
    titles = [f"{runtime.title} {runtime.version}" for runtime in here.values()]
    lines = [
        "# Which runtimes take which attention blocks",
        "",
        f"    {command}",
        "",
        "Each block in a network with open gates, exported and compared with PyTorch on one image: "
        "the largest difference of a box in pixels. A block agrees up to "
        f"{MAX_BOX_DIFFERENCE:g} px in boxes and {MAX_SCORE_DIFFERENCE:g} in scores.",
        "",
        f"| block | {' | '.join(titles)} |",
        f"| --- |{' ---: |' * len(titles)}",
    ]
    for block, found in verdicts.items():
        cells = [f"{found[name].box:.5f}" if found[name].agrees else "no" for name in here]
        lines.append(f"| {block} | {' | '.join(cells)} |")
    absent = {name: runtime.missing for name, runtime in runtimes.items() if runtime.missing}
    lines += ["", *(f"- {name}: not installed: {_install(absent[name])}" for name in absent)]
    for block, found in verdicts.items():
        gaps = [name for name in here if not found[name].agrees]
        lines += [f"- {block}, {here[name].title}: {found[name]}" for name in gaps]
    return "\n".join(lines).rstrip() + "\n"


def _install(packages: Sequence[str]) -> str:
    return f"pip install {' '.join(packages)}"


def failures(
    verdicts: Mapping[str, Mapping[str, Verdict]], runtimes: Mapping[str, Runtime]
) -> list[str]:
    """Blocks that fail where every block must run: "cbam in OpenCV"."""
    return [
        f"{block} in {runtimes[name].title}"
        for block, found in verdicts.items()
        for name, verdict in found.items()
        if runtimes[name].takes_all and not verdict.agrees
    ]
