"""Learning rate, weight decay groups and the average of the weights."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from nets import attention
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny
from utils.core.schema import TrainConfig
from utils.engine.optim import ModelEMA, learning_rate, make_optimizer

STEPS = 20


def curve(**options: object) -> list[float]:
    config = TrainConfig(**options)
    return [learning_rate(config, step, STEPS) for step in range(config.epochs * STEPS)]


def test_warm_up_rises_to_the_peak_and_the_cosine_falls_to_its_share() -> None:
    rates = curve(epochs=100, warmup_epochs=3, lr=0.02, final_lr_ratio=0.01)
    warm = 3 * STEPS
    assert 0 < rates[0] < 0.02 / 50
    assert all(a < b for a, b in pairwise(rates[: warm + 1]))
    assert all(a > b for a, b in pairwise(rates[warm:]))
    assert max(rates) == pytest.approx(0.02, rel=0.01)
    assert rates[50 * STEPS] == pytest.approx(0.02 * (1 + 0.01) / 2)
    assert rates[-1] == pytest.approx(0.02 * 0.01, rel=0.02)


def test_the_rise_is_linear() -> None:
    rates = curve(epochs=1000, warmup_epochs=2, lr=1.0)  # so long that the cosine stands still
    gaps = [b - a for a, b in pairwise(rates[: 2 * STEPS])]
    assert gaps == pytest.approx([1 / (2 * STEPS + 1)] * len(gaps), rel=1e-3)


def test_a_short_run_does_not_warm_up_for_ever() -> None:
    rates = curve(epochs=2, warmup_epochs=3, lr=1.0)
    assert rates.index(max(rates)) <= 2 * STEPS / 3
    assert max(rates) > 0.6


def test_no_warm_up_starts_at_the_peak_and_defaults_follow_the_optimizer() -> None:
    assert curve(epochs=2, warmup_epochs=0)[0] == pytest.approx(0.01)
    assert curve(epochs=2, warmup_epochs=0, optimizer="adamw")[0] == pytest.approx(0.001)
    assert len(set(curve(epochs=2, warmup_epochs=0, final_lr_ratio=1.0))) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers_are_set_as_configured(optimizer: str) -> None:
    made = make_optimizer(
        nn.Linear(2, 2), TrainConfig(optimizer=optimizer, lr=0.3, momentum=0.8, weight_decay=0.07)
    )
    assert [group["weight_decay"] for group in made.param_groups] == [0.07, 0.0]
    assert {group["lr"] for group in made.param_groups} == {0.3}
    if optimizer == "sgd":
        assert isinstance(made, torch.optim.SGD)
        assert all(group["nesterov"] and group["momentum"] == 0.8 for group in made.param_groups)
    else:
        assert isinstance(made, torch.optim.AdamW) and made.param_groups[0]["betas"] == (0.8, 0.999)
    make_optimizer(
        nn.Linear(2, 2), TrainConfig(optimizer="sgd", momentum=0)
    ).step()  # Nesterov without momentum does not exist


def test_muon_orthogonalizes_hidden_matrices_only() -> None:
    network = YOLOv4Tiny(2, sites={"feat1": "cbam", "upsample": "eca"})
    optimizer = make_optimizer(network, TrainConfig(optimizer="muon", lr=0.3, weight_decay=0.07))
    first, decayed, others = optimizer.param_groups
    assert [group["orthogonal"] for group in optimizer.param_groups] == [True, False, False]
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.07, 0.07, 0.0]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    every = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(every) == sorted(names), "every parameter is trained once"
    assert {"predict32.weight", "predict16.weight"} <= {names[id(p)] for p in decayed["params"]}
    assert all(p.shape[1] > 1 for p in first["params"])
    assert all(p.ndim == 1 for p in others["params"])
    only_biases = make_optimizer(nn.BatchNorm2d(3), TrainConfig(optimizer="muon"))
    assert isinstance(only_biases, torch.optim.SGD)


def decayed_names(network: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters that are decayed, and of all."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimizer(network, TrainConfig(optimizer="sgd")).param_groups
    parameters = [p for group in groups for p in group["params"]]
    assert sorted(map(id, parameters)) == sorted(names), "every parameter is trained once"
    return {
        names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]
    }, set(names.values())


def map_weights(network: nn.Module) -> set[str]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, kinds)
    }


def test_only_weights_of_convolutions_and_linear_maps_are_decayed() -> None:
    network = YOLOv4Tiny(
        2, sites=dict.fromkeys(SITES, "cbam") | {"stem": "se", "csp1": "eca"}, init="identity"
    )
    decayed, every = decayed_names(network)
    assert decayed == map_weights(network)
    assert {
        name for name in every if "bias" in name or ".bn." in name or "alpha" in name
    }.isdisjoint(decayed)


@pytest.mark.parametrize("name", attention.names())
def test_no_blocks_gates_or_norms_are_decayed(name: str) -> None:
    block = attention.build(name, 64, "identity")
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    decayed, _ = decayed_names(block)
    parts = block.named_modules()
    held = {
        f"{path}.{own}".strip(".")
        for path, m in parts
        if isinstance(m, norms)
        for own, _ in m.named_parameters()
    }
    assert decayed.isdisjoint(held)
    assert all(block.get_parameter(each).numel() > 1 for each in decayed), (
        "a scalar gate is decayed"
    )


# the average


class Small(nn.Module):
    """A weight, a statistic and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("mean", torch.tensor(10.0))
        self.register_buffer("count", torch.tensor(0))

    def set(self, weight: float, mean: float, count: int) -> None:
        self.load_state_dict(
            {
                "weight": torch.full((2,), weight),
                "mean": torch.tensor(mean),
                "count": torch.tensor(count),
            }
        )


@pytest.mark.parametrize("limit", [0.9998, 0.2])
def test_the_average_equals_its_formula_by_hand(limit: float) -> None:
    network = Small()
    average = ModelEMA(network, limit)  # type: ignore[arg-type]
    weight, mean = [1.0, 2.0], 10.0
    for update in range(1, 6):
        network.set(3.0 * update, -1.0 * update, update)
        average.update(network)
        decay = min(limit, (1 + update) / (10 + update))
        weight = [decay * old + (1 - decay) * 3.0 * update for old in weight]
        mean = decay * mean + (1 - decay) * -1.0 * update
        held = average.network.state_dict()
        assert held["weight"].tolist() == pytest.approx(weight)
        assert held["mean"].item() == pytest.approx(mean)
        assert held["count"].item() == update and held["count"].dtype == torch.int64
    assert average.updates == 5


def test_no_decay_follows_the_network_and_leaves_it_alone() -> None:
    network = Small()
    average = ModelEMA(network, 0.0)  # type: ignore[arg-type]
    network.set(7.0, 8.0, 9)
    average.update(network)
    assert all(
        torch.equal(a, b)
        for a, b in zip(average.network.parameters(), network.parameters(), strict=True)
    )
    assert (
        not any(p.requires_grad for p in average.network.parameters())
        and not average.network.training
    )
    assert network.weight.requires_grad and network.training
    network.set(0.0, 0.0, 0)
    assert average.network.weight.tolist() == [7.0, 7.0], "the average has tensors of its own"


def test_the_average_forgets_its_start() -> None:
    network = Small()
    average = ModelEMA(network, 0.9998)  # type: ignore[arg-type]
    network.set(5.0, 5.0, 1)
    for _ in range(200):
        average.update(network)
    assert math.isclose(average.network.weight[0].item(), 5.0, rel_tol=1e-4)
