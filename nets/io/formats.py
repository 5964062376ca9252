"""The formats of exported files that this project reads again: how, and which backends run them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nets.io.exported import ExportedFile
from nets.io.litert import read_litert, write_litert
from nets.io.ncnn import METADATA_SUFFIX, read_ncnn, write_ncnn
from nets.io.onnx import RUNTIMES, read_onnx, write_onnx
from nets.io.openvino import read_openvino, write_openvino
from nets.io.torchscript import read_torchscript, write_torchscript


@dataclass(frozen=True)
class Format:
    """A format that networks are written in.

    Attributes:
        title: for messages, e.g. "an ONNX file".
        write: writes a network; arguments as of `write_onnx`, as far as the format has them.
        companions: suffixes of the files that lie next to the one that is named.
    """

    title: str
    write: Callable[..., None]
    companions: tuple[str, ...] = ()

    def files(self, path: Path) -> list[Path]:
        """All files of the export that is named by `path`, which comes first."""
        return [path, *(path.with_suffix(suffix) for suffix in self.companions)]


@dataclass(frozen=True)
class RunnableFormat(Format):
    """A format that backends run.

    Attributes:
        read: reads the metadata.
        backends: that run it.
    """

    read: Callable[[Path], ExportedFile] = field(kw_only=True)
    backends: tuple[str, ...] = field(kw_only=True)


FORMATS = {  # by suffix
    ".onnx": RunnableFormat("an ONNX file", write_onnx, read=read_onnx, backends=RUNTIMES),
    ".xml": RunnableFormat(
        "an OpenVINO file", write_openvino, (".bin",), read=read_openvino, backends=("openvino",)
    ),
    ".param": RunnableFormat(
        "an ncnn file", write_ncnn, (".bin", METADATA_SUFFIX), read=read_ncnn, backends=("ncnn",)
    ),
    ".tflite": RunnableFormat(
        "a TFLite file", write_litert, read=read_litert, backends=("litert",)
    ),
    ".torchscript": RunnableFormat(
        "a TorchScript file", write_torchscript, read=read_torchscript, backends=("torch",)
    ),
}
