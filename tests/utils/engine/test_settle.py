"""What `auto` becomes; the memory of a batch against tensors that were really kept."""

from collections.abc import Callable

import pytest
import torch

import utils.engine.settle
from nets.yolo.yolov4_tiny import build_model
from utils.core.memory import available_memory
from utils.core.schema import Config
from utils.engine.settle import bytes_per_image, settle


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Set what is available, in bytes."""

    def set_memory(size: int | None) -> None:
        monkeypatch.setattr(utils.engine.settle, "available_memory", lambda device: size)

    return set_memory


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [
        (3, 8, 300),
        (130, 8, 125),  # 16 steps per epoch
        (300, 8, 55),
        (999, 8, 30),
        (1440, 16, 30),
        (118_000, 16, 30),
    ],
)
def test_small_datasets_get_many_epochs_and_large_ones_few(
    memory: Callable, images: int, batch_size: int, epochs: int
):
    memory(2**40)
    train = settle(Config(), images).train
    assert (train.batch_size, train.accumulate, train.epochs) == (batch_size, 1, epochs)


def test_what_is_set_stays():
    config = Config(train={"batch_size": 5, "epochs": 7})  # type: ignore[arg-type]
    assert settle(config, 100) == config
    train = settle(Config(train={"batch_size": 100}), 1000).train  # type: ignore[arg-type]
    assert (train.batch_size, train.epochs) == (100, 200)


def test_a_batch_that_does_not_fit_is_divided(memory: Callable):
    config = Config(input_size=(64, 64), precision="fp32")
    one = bytes_per_image(config, "fp32")
    found = []
    for size in (100 * one, 20 * one, 7 * one, one, 0, None):
        memory(size)
        train = settle(config, 5000).train
        assert train.images_per_step == 16 and train.epochs == 30
        found.append(train.accumulate)
    assert found == [1, 2, 8, 16, 16, 1]  # half of the memory is left to gradients and the rest


@pytest.mark.parametrize("phi", ["none", "cbam"])
def test_the_memory_of_an_image_is_that_of_the_tensors_kept(phi: str):
    config = Config(input_size=(96, 64), phi=phi)
    network = build_model(config, num_classes=1).train()
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    sums = []
    for count in (2, 3):
        kept.clear()
        images = torch.zeros(count, 3, 96, 64)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            maps = network(images)
        sums.append(sum(kept.values()))
        del maps
    assert bytes_per_image(config, "fp32") == pytest.approx(sums[1] - sums[0], rel=0.02)
    assert bytes_per_image(config, "bf16") < 0.6 * bytes_per_image(config, "fp32")


def test_the_memory_of_this_machine_is_plausible():
    size = available_memory(torch.device("cpu"))
    assert size is None or 2**26 < size < 2**46
