"""What training mode refuses is told before training; the network stays as it was."""

import pytest
import torch
from torch import Tensor, nn

from nets import attention
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.engine.dry_run import dry_run


class Pooled(nn.Module):
    """A user's block: batch normalization behind global pooling, and dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(channels), nn.Dropout(), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class PerImage(nn.Module):
    """Instance normalization: images do not help one another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Broken(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("a mistake in the program")
        return x


def network_of(phi: object) -> YOLOv4Tiny:
    return build_model(make_config({"phi": phi}), 2)


def pooled() -> YOLOv4Tiny:
    return network_of({"feat1": f"{__name__}:Pooled"})


@pytest.mark.parametrize("name", attention.names())
def test_one_image_per_step_is_enough_for_every_block_of_ours(name: str) -> None:
    dry_run(network_of({"feat1": name, "feat2": name, "upsample": name}), (32, 64), 1)


def test_a_map_of_one_position_wants_two_images() -> None:
    network = network_of("none")
    with pytest.raises(
        UserError, match=r"of 1 image with input_size=\[32, 32\]: backbone\.last\.bn gets"
    ) as got:
        dry_run(network, (32, 32), 1)
    assert "\n" not in str(got.value)
    dry_run(network, (32, 32), 2)
    dry_run(network, (32, 32), 64)


def test_a_block_that_normalizes_what_it_pooled_wants_two_images_at_any_size() -> None:
    with pytest.raises(
        UserError, match=r"of 1 image with input_size=\[64, 96\]: attention\.feat1\.gate\.1 gets"
    ):
        dry_run(pooled(), (64, 96), 1)
    dry_run(pooled(), (64, 96), 2)


def test_instance_normalization_of_one_position_is_refused_for_any_number_of_images() -> None:
    with pytest.raises(UserError, match=r"of 8 images .*attention\.feat2\.norm gets"):
        dry_run(network_of({"feat2": f"{__name__}:PerImage"}), (32, 32), 8)


def test_other_mistakes_are_not_hidden() -> None:
    with pytest.raises(ValueError, match="a mistake in the program"):
        dry_run(network_of({"feat1": f"{__name__}:Broken"}), (64, 64), 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_nothing_is_changed(training: bool, batch_size: int) -> None:
    network = pooled().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.random.get_rng_state()
    try:
        dry_run(network, (64, 64), batch_size)
    except UserError:
        assert batch_size == 1
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training == training and not any(
        module._forward_pre_hooks for module in network.modules()
    )
