"""What all exported files share: the metadata that makes one a whole detector."""

import copy
import io
import json
import logging
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from nets.io.checkpoints import Anchors
from nets.io.client_metadata import client_metadata
from nets.yolo.box_coder import map_sizes
from nets.yolo.pipeline import Pipeline
from nets.yolo.yolov4_tiny import YOLOv4Tiny, check_anchor_count
from utils.core.class_names import checked_names
from utils.core.config import dump_config, restore_config
from utils.core.errors import UserError, shorten
from utils.core.inputs import check_input, hash_files, read_with
from utils.core.outputs import write_error
from utils.core.schema import Config
from utils.core.validation import validate, validate_json
from utils.core.yaml_text import parse_yaml

INPUT = "images"
OUTPUTS = ("boxes", "scores")
DETECTIONS = "detections"  # the only output of a file that ends with NMS
METADATA_KEYS = ("config", "names", "anchors")
PRECISION = "precision"  # metadata of a quantized file
CHECKSUM = "sha256"  # metadata of files that lie next to others: of those
METADATA_FILE = "metadata.json"  # in or next to files without a place for metadata of their own
OPENVINO_PLACE = re.compile("Exception from .*|Check '.*' failed at .*|$")  # in its source
ORT_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")

Shapes = dict[str, list[int | None]]  # of the inputs and outputs by name; None: any size


@dataclass(frozen=True)
class ExportedFile:
    """An exported file and its metadata.

    Attributes:
        path: the file that is named; some formats have a second one next to it.
        config: the configuration of the experiment.
        names: the class names.
        anchors: (width, height) in input pixels, three per head.
        batch: number of images that each call takes; None: any.
        precision: "int8" if it was quantized.
        has_nms: whether it ends with NMS, and returns `detections`.
    """

    path: Path
    config: Config
    names: tuple[str, ...]
    anchors: list[list[float]]
    batch: int | None = None
    precision: str | None = None
    has_nms: bool = False


def metadata_texts(
    network: YOLOv4Tiny, config: Config, names: Sequence[str], has_nms: bool = False
) -> dict[str, str]:
    """Return the metadata of an exported file: `anchors` (JSON), `config` (YAML) and more.

    Args:
        network: the network.
        config: its configuration.
        names: the class names.
        has_nms: whether the file ends with NMS.
    """
    return {
        **client_metadata(config, names, has_nms),
        "anchors": json.dumps(network.coder.anchors.tolist()),
        "config": dump_config(config),
    }


def export_pipeline(network: YOLOv4Tiny, config: Config) -> Pipeline:
    """Return a copy of a network and its box coder to convert: float32, on the CPU, in eval mode.

    Its weights are contiguous: litert-torch loses digits where they are channels last.
    """
    network = copy.deepcopy(network).to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Pipeline(network, config.input_size).eval()


@contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to a file to write, whose folder is made if it is missing.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {write_error(error)}") from None
    with folder as name:
        yield Path(name)


def parse_metadata(
    path: Path, texts: Mapping[str, str], shapes: Shapes | None, batch: int | None = None
) -> ExportedFile:
    """Check what a file says about itself.

    Args:
        path: the file.
        texts: what `metadata_texts` returned when it was written.
        shapes: of its inputs and outputs; None: the format does not tell them.
        batch: number of images that each call takes, where `shapes` do not tell it.

    Raises:
        UserError: metadata are missing or malformed, or disagree with the shapes.
    """
    for key in METADATA_KEYS:
        if key not in texts:
            raise UserError(
                f"{path}: no {key} in its metadata; expected a file that export.py wrote"
            )
    values = validate(
        dict[str, Any], parse_yaml(texts["config"], f"{path}: config"), f"{path}: config"
    )
    config = restore_config(values, f"{path}: config")
    names = validate_json(list[str], texts["names"], f"{path}: names")
    anchors = validate_json(Anchors, texts["anchors"], f"{path}: anchors")
    check_anchor_count(anchors, config.model, f"{path}: anchors")
    if shapes is not None:
        _check_shapes(path, shapes, config, len(names))
        batch = shapes[INPUT][0]
    return ExportedFile(
        path,
        config,
        checked_names(names, f"{path}: names"),
        anchors,
        batch,
        texts.get(PRECISION),
        has_nms=DETECTIONS in (shapes or {}),
    )


def check_companions(path: Path, texts: Mapping[str, str], files: Sequence[Path]) -> None:
    """Refuse files of different exports: their shapes may fit.

    Args:
        path: the file with the metadata.
        texts: the metadata; without a checksum, nothing is compared.
        files: those that it was made of.

    Raises:
        UserError: a file cannot be read, or is another than when the metadata were written.
    """
    if CHECKSUM in texts and texts[CHECKSUM] != hash_files(files):
        raise UserError(
            f"{path}: does not belong to {' and '.join(file.name for file in files)}: expected the "
            f"files of one export, found another {CHECKSUM}; copy all of them, or export again"
        )


def _check_shapes(path: Path, shapes: Shapes, config: Config, num_classes: int) -> None:
    """Compare the graph's inputs and outputs with the metadata, except for the batch size."""
    maps = map_sizes(config.input_size, config.model.heads)
    predictions = sum(3 * height * width for height, width in maps)
    expected: dict[str, tuple[int, ...]] = {
        INPUT: (3, *config.input_size),
        OUTPUTS[0]: (predictions, 4),
        OUTPUTS[1]: (predictions, num_classes),
    }
    if DETECTIONS in shapes:
        count = min(config.predict.max_detections, predictions * num_classes)
        expected = {INPUT: expected[INPUT], DETECTIONS: (count, 6)}
    if shapes.keys() != expected.keys():
        found = shorten(", ".join(shapes))
        raise UserError(f"{path}: inputs and outputs {found}; expected {', '.join(expected)}")
    for name, wanted in expected.items():
        sizes = shapes[name][1:]
        pairs = list(zip_longest(sizes, wanted, fillvalue=0))
        if any(size not in (None, want) for size, want in pairs):
            raise UserError(
                f"{path}: {name} has shape (N, {', '.join(map(str, sizes))}), but its metadata ask "
                f"for (N, {', '.join(map(str, wanted))})"
            )


def output_names(exported: ExportedFile | None) -> list[str]:
    """Return the outputs of a file; None: of those that backends make for themselves."""
    return [DETECTIONS] if exported and exported.has_nms else list(OUTPUTS)


def unpack(outputs: Sequence[np.ndarray], num_classes: int) -> tuple[Tensor, Tensor]:
    """Return boxes and scores, also of a file that ends with NMS.

    Args:
        outputs: boxes and scores; or detections alone, `(N, K, 6)`.
        num_classes: number of classes.

    Returns:
        Boxes `(N, A, 4)` and scores `(N, A, C)`. A detection has a score in its class only.
    """
    tensors = [torch.from_numpy(output) for output in outputs]
    if len(tensors) == 2:
        return tensors[0], tensors[1]
    boxes, best, label = tensors[0].split([4, 1, 1], -1)
    return boxes, best * (label == torch.arange(num_classes))


@contextmanager
def runtime_errors(path: str | Path, problem: str) -> Iterator[None]:
    """Report in one line what a runtime raises about a file: each has exceptions of its own.

    Args:
        path: the file, or what is done.
        problem: what cannot be done with it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if not OPENVINO_PLACE.match(line)]
        reason = ORT_CODE.sub("", lines[0] if lines else type(error).__name__)
        raise UserError(f"{path}: {problem}: {shorten(reason, 200)}") from None


@contextmanager
def silence() -> Iterator[None]:
    """Keep what libraries tell of their internals from the user: warnings, logs and prints."""
    before = logging.root.manager.disable
    stderr = os.dup(2)  # where libraries in C++ write
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
            os.dup2(stderr, 2)
            os.close(stderr)


def read_archived(path: Path, title: str) -> dict[str, str]:
    """Read `METADATA_FILE` from a file that is, or ends in, a zip archive.

    Args:
        path: the file.
        title: its format, for error messages.

    Raises:
        UserError: the file cannot be read, or is no archive.
    """

    def read(file: BinaryIO) -> bytes:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if Path(name).name == METADATA_FILE]
            return archive.read(names[0]) if names else b"{}"

    check_input(path)
    with runtime_errors(path, f"not readable as {title}"):
        content = read_with(read, path)
    return validate_json(dict[str, str], content, f"{path}: {METADATA_FILE}")
