"""TorchScript files: nothing in one is tied to the device that it was written on."""

from pathlib import Path

import torch

from nets.io.torchscript import trace, write_torchscript
from nets.yolo.yolov4_tiny import SITES, build_model
from utils.core.config import make_config

MAKE_TENSORS = ["acmix", "biformer", "ccnet", "clo", "cot", "dat", "halo", "stn", "window"]


def test_what_blocks_create_lies_where_the_images_are(tmp_path: Path) -> None:
    phi = dict(zip(SITES, MAKE_TENSORS, strict=False))
    config = make_config({"phi": phi, "input_size": 64})
    network = build_model(config, 2).eval()
    write_torchscript(network, config, ("a", "b"), tmp_path / "a.torchscript")
    loaded = torch.jit.load(tmp_path / "a.torchscript")
    nodes = [node for node in loaded.inlined_graph.nodes() if node.outputsSize() == 1]
    devices = [node for node in nodes if node.output().type().kind() == "DeviceObjType"]
    assert {node.kind() for node in devices} == {"prim::device"}
    images = torch.rand(2, 3, 64, 64)
    assert all(map(torch.equal, loaded(images), trace(network, config)(images)))
