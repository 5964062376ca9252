"""The same seed gives the same batches, whatever the setting, the workers and interruptions."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from utils.compare.planning.request import make_plan
from utils.compare.trials.running import SharedData, run_trial
from utils.data.augmentation import Batch
from utils.engine.learner import LOSS_NAMES
from utils.engine.trainer import Trainer

STEPS = 6  # two epochs of three


@dataclass
class Watch:
    """Hashes of the batches that came; `stop`: interrupt instead of the step of this number."""

    hashes: list[str] = field(default_factory=list)
    stop: int = -1

    def step(self, trainer: Trainer, batch: Batch) -> torch.Tensor:
        if len(self.hashes) == self.stop:
            self.stop = -1
            raise KeyboardInterrupt
        content = [
            tensor.contiguous().numpy().tobytes()
            for tensor in (batch.images, batch.boxes, batch.labels)
        ]
        self.hashes.append(hashlib.sha256(b"".join(content)).hexdigest())
        trainer.progress.step += 1
        return torch.zeros(len(LOSS_NAMES))


@pytest.fixture
def batches(
    tiny_words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """`batches(setting, seed, workers, stop)`: hashes of the batches of a trial."""

    def run(setting: str = "none", seed: int = 0, workers: int = 0, stop: int = -1) -> list[str]:
        watch = Watch(stop=stop)
        monkeypatch.setattr(Trainer, "step", lambda trainer, batch: watch.step(trainer, batch))
        words = [*tiny_words, f"train.workers={workers}"]
        plan = make_plan("shapes.yaml", ("none", "se"), overrides=words, seeds=(seed,))
        trial = next(trial for trial in plan.trials if trial.setting == setting)
        trial = replace(trial, folder=tmp_path / f"{setting}-{seed}-{workers}-{stop}")
        if stop >= 0:
            with pytest.raises(KeyboardInterrupt):
                run_trial(trial, SharedData())
        assert run_trial(trial, SharedData())
        return watch.hashes

    return run


def test_a_seed_gives_every_setting_the_same_batches_and_another_seed_others(
    batches: Callable[..., list[str]],
):
    first = batches()
    assert len(set(first)) == len(first) == STEPS  # no step and no epoch repeats another
    assert batches("se") == first
    assert not set(batches(seed=1)) & set(first)


@pytest.mark.parametrize(("workers", "stop"), [(0, 1), pytest.param(3, 4, marks=pytest.mark.slow)])
def test_workers_and_an_interruption_change_nothing(
    workers: int, stop: int, batches: Callable[..., list[str]]
):
    assert batches(workers=workers, stop=stop) == batches()
