"""What `last.pt` says about a training is checked before it is restored."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from nets.io import checkpoints
from utils.core.config import restore_config
from utils.core.errors import UserError
from utils.engine.experiment import Result
from utils.engine.optim import make_optimizer
from utils.engine.runs import LAST
from utils.engine.saved_state import check_training, restore_optimizer, restore_scaler

PATH = Path("last.pt")
DELETED = object()


@pytest.fixture(scope="module")
def saved(trained: Result) -> dict[str, Any]:
    return checkpoints.load(trained.run / LAST)


def changed(saved: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted key inside `training`."""
    content = copy.deepcopy(saved)
    *parents, last = key.split(".")
    section = content["training"]
    for name in parents:
        section = section[int(name) if name.isdigit() else name]
    if value is DELETED:
        del section[last]
    else:
        section[last] = value
    return content


def test_what_a_training_saves_is_accepted(saved: dict[str, Any]) -> None:
    check_training(saved, PATH)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("progress", DELETED, "training.progress is missing"),
        ("progress.epoch", "abc", "training.progress.epoch: expected a valid integer, got 'abc'"),
        ("progress.epoch", -1, "progress.epoch: expected a value greater than or equal to 0"),
        ("progress.epoch", 3, "epoch 3 of 2, 2 rows of history, done true"),
        ("progress.history", [], "epoch 2 of 2, 0 rows of history, done true"),
        ("progress.history", [{"loss": "x"}], "progress.history.0.loss: expected a valid number"),
        ("progress.sums", {"loss": float("nan")}, "progress.sums.loss: expected a finite number"),
        ("progress.done", False, "epoch 2 of 2, 2 rows of history, done false"),
        ("progress.more", 1, "unknown key 'training.progress.more'"),
        ("average_updates", None, "average_updates: expected a valid integer, got None"),
        ("network", [], "network: expected a valid dictionary"),
        ("network.more", torch.full((2,), float("nan")), "network: more: contains NaN"),
        ("optimizer", {}, "optimizer.state is missing"),
        ("optimizer.state.a", {}, "optimizer.state.a.[key]: expected a valid integer, got 'a'"),
        ("scaler", {"scale": "x"}, "scaler.scale: expected a valid number"),
        ("data.train", {"images": 3}, "data.train.objects is missing"),
    ],
)
def test_a_malformed_section_is_named(
    key: str, value: Any, words: str, saved: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as caught:
        check_training(changed(saved, key, value), PATH)
    message = str(caught.value)
    assert message.startswith("last.pt: ") and words in message and "\n" not in message


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_state_of_an_optimizer_comes_back(name: str, saved: dict[str, Any]) -> None:
    config = restore_config(saved["config"], "test").train.model_copy(update={"optimizer": name})
    network = torch.nn.Conv2d(3, 4, 3)
    first, second = make_optimizer(network, config), make_optimizer(network, config)
    network(torch.rand(1, 3, 5, 5)).sum().backward()
    first.step()
    state = first.state_dict()
    state["param_groups"] = []  # not believed: the configuration says what is in it
    restore_optimizer(second, state, "last.pt")
    assert second.state_dict()["param_groups"] == first.state_dict()["param_groups"]
    for index, values in first.state_dict()["state"].items():
        restored = second.state_dict()["state"][index]
        assert values.keys() == restored.keys()
        assert all(torch.equal(values[key], restored[key]) for key in values)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({7: {"momentum_buffer": torch.zeros(4)}}, "state.7: the network has only 2 parameters"),
        ({0: {"momentum_buffer": torch.zeros(4)}}, r"state.0.momentum_buffer: shape \(4,\)"),
        ({0: {"exp_avg": torch.zeros(4)}}, "state.0: expected momentum_buffer, got exp_avg"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(
    state: dict[int, Any], words: str, saved: dict[str, Any]
) -> None:
    optimizer = make_optimizer(torch.nn.Conv2d(3, 4, 3), restore_config(saved["config"], "").train)
    with pytest.raises(UserError, match=words):
        restore_optimizer(optimizer, {"state": state, "param_groups": []}, "last.pt")


def test_a_scaler_is_restored_only_where_there_is_one() -> None:
    restore_scaler(torch.amp.GradScaler("cpu", enabled=False), {}, "last.pt")
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    state = {**scaler.state_dict(), "scale": 8.0}
    restore_scaler(scaler, state, "last.pt")
    assert scaler.get_scale() == 8.0
    with pytest.raises(UserError, match=r"training\.scaler: scale is missing"):
        restore_scaler(scaler, {}, "last.pt")
