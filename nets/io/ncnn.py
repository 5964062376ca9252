"""ncnn's files, `.param` and `.bin`; the metadata lie next to them, in `.metadata.json`."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from nets.io.exported import (
    CHECKSUM,
    INPUT,
    METADATA_FILE,
    OUTPUTS,
    ExportedFile,
    check_companions,
    metadata_texts,
    parse_metadata,
    silence,
    work_folder,
)
from nets.io.ncnn_trace import trace_for_pnnx
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError, require_package, shorten
from utils.core.inputs import hash_files, read_file
from utils.core.outputs import write_file
from utils.core.schema import Config
from utils.core.validation import read_json

METADATA_SUFFIX = f".{METADATA_FILE}"
BLOBS = {"in0": INPUT, "out0": OUTPUTS[0], "out1": OUTPUTS[1]}  # pnnx's names: ours
UNSUPPORTED = re.compile(r"\b(unsupported|not supported)\b", re.IGNORECASE)


def write_ncnn(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    half: bool = False,
) -> None:
    """Convert a network with pnnx.

    The blob `images` takes one image `(3, H, W)`, float32, RGB, 0..1; `boxes` is `(A, 4)`, xyxy in
    input pixels, and `scores` `(A, C)`.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the `.param` file to write; the others are written next to it.
        half: store the weights as float16; what is computed depends on the runtime's options.

    Raises:
        UserError: pnnx is not installed or cannot convert the network, ncnn has no layer for an
            operator, or a file cannot be written.
    """
    pnnx = require_package("pnnx", "export to ncnn")
    path = Path(path)
    with work_folder(path) as folder:
        with silence():
            torch.jit.save(trace_for_pnnx(network, config), str(Path(folder, "model.pt")))
        height, width = config.input_size
        settings = [f"inputshape=[1,3,{height},{width}]f32", f"fp16={half:d}"]
        command = [pnnx.EXEC_PATH, "model.pt", *settings]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        results = [Path(folder, f"model.ncnn.{kind}") for kind in ("param", "bin")]
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        words = [line for line in (line.strip("# ") for line in lines) if line] or ["none"]
        if done.returncode or not all(result.is_file() for result in results):
            raise UserError(
                "export to ncnn: pnnx cannot convert this network: exit code "
                f"{done.returncode}, last words: {shorten(words[-1])}"
            )
        # it goes on, and writes a file that computes something else, or takes the process down
        if refused := [line for line in words if UNSUPPORTED.search(line)]:
            raise UserError(f"export to ncnn: pnnx: {shorten(refused[0])}")
        param, weights = map(read_file, results)
    _check_layers(param)
    write_file(path, re.sub(rb"\b(in0|out0|out1)\b", _our_name, param))
    write_file(path.with_suffix(".bin"), weights)
    texts = metadata_texts(network, config, names)
    texts[CHECKSUM] = hash_files(_described(path))
    write_file(path.with_suffix(METADATA_SUFFIX), json.dumps(texts, ensure_ascii=False, indent=1))


def _described(path: Path) -> list[Path]:
    """The files that the metadata are about."""
    return [path, path.with_suffix(".bin")]


def _check_layers(param: bytes) -> None:
    """Refuse operators that pnnx left as they are, such as `F.affine_grid`: ncnn has none of them.

    Raises:
        UserError: there are some.
    """
    layers = {line.split()[0].decode() for line in param.splitlines()[2:] if line.strip()}
    unknown = sorted(name for name in layers if "." in name or ":" in name)
    if unknown:
        raise UserError(f"export to ncnn: it has no layer for {', '.join(unknown)}")


def _our_name(blob: re.Match[bytes]) -> bytes:
    return BLOBS[blob[0].decode()].encode()


def read_ncnn(path: Path) -> ExportedFile:
    """Read the metadata of files that `write_ncnn` wrote.

    Raises:
        UserError: there are none next to the file, or they are malformed or of other files.
    """
    metadata = path.with_suffix(METADATA_SUFFIX)
    texts = read_json(dict[str, str], metadata)
    check_companions(metadata, texts, _described(path))
    return parse_metadata(path, texts, None, batch=1)
