"""Folded batch normalization: the same outputs, and nothing left to fold."""

import pytest
import torch
from torch import nn

from nets.yolo.pipeline import Pipeline, fold_batch_norms
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny, build_model
from utils.core.config import make_config


def with_statistics(network: nn.Module) -> nn.Module:
    """Random statistics and weights in every batch norm, as after training."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def assert_close_maps(folded: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, reference in zip(folded, expected, strict=True):
        torch.testing.assert_close(
            ours, reference, atol=1e-4 * reference.abs().max().item(), rtol=0
        )


def norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    "phi",
    ["none", "se", "cbam", "bam", "ca", "triplet", "sk", "split", "danet_head"]
    + ["tests.nets.attention.user_blocks:Apart"],
)
def test_outputs_stay_with_and_without_attention(phi: str) -> None:
    network = with_statistics(build_model(make_config({"phi": phi}), 3)).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, folded = network(images), fold_batch_norms(network)(images)
    assert_close_maps(folded, expected)


def test_every_site_at_once() -> None:
    network = with_statistics(YOLOv4Tiny(2, sites=dict.fromkeys(SITES, "bam"))).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, folded = network(images), fold_batch_norms(network)(images)
    assert_close_maps(folded, expected)


def test_a_plain_network_keeps_no_norm_and_the_original_keeps_all() -> None:
    network = YOLOv4Tiny(2).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert norms(folded) == [] and len(norms(network)) == 19
    assert network.training and not folded.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_only_what_follows_a_convolution_directly_is_folded() -> None:
    class Own(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[1](self[0](x).relu())

    apart = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    of_the_batch = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    network = with_statistics(
        nn.Sequential(Own(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), apart, of_the_batch)
    ).eval()
    x = torch.randn(2, 2, 4, 4)
    folded = fold_batch_norms(network)
    assert norms(folded) == norms(network) and len(norms(network)) == 3
    assert torch.equal(folded(x), network(x))


def test_a_pipeline_moves_as_a_whole_and_the_network_stays() -> None:
    network = YOLOv4Tiny(2)
    pipeline = Pipeline(network, (64, 96)).to("meta")
    boxes, scores = pipeline(torch.rand(1, 3, 64, 96, device="meta"))
    assert boxes.is_meta and scores.shape == (1, 3 * (2 * 3 + 4 * 6), 2)
    tensors = [*network.parameters(), *network.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
