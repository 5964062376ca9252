"""Nothing in a training step makes the CPU wait for the device.

The meta device has no values: whatever needs one fails there. Copies, which make the CPU wait for
a GPU too, are caught by name: new tensors and copies from the CPU (except through `to_device`),
indexing with lists, checked inversion.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.core import devices
from utils.core.schema import Config
from utils.engine.batches import make_pool
from utils.engine.datasets import open_dataset
from utils.engine.experiment import new_detector
from utils.engine.trainer import Trainer

META = torch.device("meta")
WAITS = {
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "cpu",
    "numpy",
    "nonzero",
    "linalg_inv",
    "synchronize",
}
MAKES = {"tensor", "as_tensor"}
COPIES = {"to", "cuda", "copy_"}


class NoWaiting(TorchFunctionMode):
    """Raises where the CPU would wait for a device other than itself."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, options = getattr(func, "__name__", ""), kwargs or {}
        away = any(isinstance(one, Tensor) and one.is_meta for one in args)
        assert not (name in WAITS and away), f"{name} waits"
        assert not (name in MAKES and options.get("device") == META), f"{name} copies, and waits"
        if name == "__getitem__" and away:
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in parts), (
                "an index that is a list is copied"
            )
        result = func(*args, **options)
        if name in COPIES and isinstance(result, Tensor) and result.is_meta:
            assert all(one.is_meta for one in args if isinstance(one, Tensor)), (
                f"{name} copies, and waits"
            )
        return result


def free(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty_like(tensor, device=device)


@pytest.fixture
def trainer(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    for name in ("utils.engine.batches.to_device", "utils.data.augmentation.to_device"):
        monkeypatch.setattr(name, free)

    def make(*keys: str) -> Trainer:
        config = tiny("precision=fp32", *keys)
        dataset = open_dataset(config, "train")
        detector = new_detector(config, dataset)
        detector.network.to(META)
        detector.device = META
        made = Trainer(Path("run"), config, detector, dataset, dataset)
        made.batches.pool = make_pool(dataset, range(len(dataset)), META)
        made.start_epoch()
        return made

    return make


@pytest.mark.parametrize(("assign", "heads"), [("best", 2), ("aligned", 2), ("ratio", 3)])
def test_no_step_waits(assign: str, heads: int, trainer: Callable[..., Trainer]) -> None:
    made = trainer(
        "augment.mosaic=0.5",
        "augment.mixup=0.5",
        "augment.degrees=5",
        "phi=cbam",
        f"loss.assign={assign}",
        f"model.heads={heads}",
    )
    for batch in made.batches.epoch(0, closing=False):
        made.step(batch)  # the first one may: it makes the constants
    with NoWaiting():
        for batch in made.batches.epoch(1, closing=False):
            made.step(batch)
            made.meter.add(torch.zeros(4, device=META))
    assert made.progress.step == 2 * made.batches.steps


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[[0, 1]],
        lambda x: x + torch.tensor([1.0], device=META),
        lambda x: x + torch.ones(1).to(META),
        lambda x: torch.linalg.inv(x),
        lambda x: x[x > 0],
    ],
)
def test_the_guard_notices(wait: Callable[[Tensor], Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
        wait(torch.zeros(2, 2, device=META))


def test_constants_are_made_once() -> None:
    first = devices.cached_constant((1, 2), torch.device("cpu"))
    assert devices.cached_constant([1, 2], torch.device("cpu")) is first and first.tolist() == [
        1,
        2,
    ]
    with torch.inference_mode():
        assert not devices.cached_constant((3, 4), torch.device("cpu")).is_inference()
