"""ONNX Runtime, on the CPU or an NVIDIA GPU."""

import torch
from torch import Tensor

from nets.inference.backends.base import Source
from nets.io.onnx_export import INPUT, OUTPUTS


class OnnxRuntimeBackend:
    """ONNX Runtime in float32 with as many threads as PyTorch uses."""

    name = "onnxruntime"

    def __init__(self, source: Source, precision: str, device: torch.device) -> None:
        import onnxruntime  # `choose_device` has told where it is missing

        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        cuda = (
            [("CUDAExecutionProvider", {"device_id": device.index or 0})]
            if device.type == "cuda"
            else []
        )
        self.session = onnxruntime.InferenceSession(
            str(source.onnx_file()), options, providers=[*cuda, "CPUExecutionProvider"]
        )

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        images = canvases.permute(0, 3, 1, 2).float().contiguous().div_(255)
        boxes, scores = self.session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(boxes), torch.from_numpy(scores)
