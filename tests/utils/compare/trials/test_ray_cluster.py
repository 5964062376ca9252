"""What `--ray` refuses, and what a trial gets of its machine; without Ray."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from utils.compare.planning.plan import Plan
from utils.compare.planning.request import make_plan
from utils.compare.trials import worker_pool
from utils.compare.trials.ray_cluster import GIB, check_ray, estimate_resources, task_options
from utils.compare.workflow import compare
from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError
from utils.core.schema import Config

WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
import compare
compare.run_command(compare.main)
"""


@pytest.mark.slow
def test_without_ray_one_line_says_what_to_install(tmp_path: Path):
    words = ["--config", "shapes.yaml", "--phi", "none", "se", "--ray", "device=cpu"]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *words, "--out", str(tmp_path / "out")],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --ray: ray is not installed: pip install ray\n"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def some_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were installed; these tests end before it is used."""
    monkeypatch.setitem(sys.modules, "ray", sys)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def plan() -> Plan:
    return make_plan("shapes.yaml", ("none", "se"), overrides=["device=cpu", "input_size=64"])


@pytest.mark.usefixtures("some_ray")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "--ray nonsense: expected auto, host:port or ray://host:port"),
        ("127.0.0.1:9", r"--ray 127.0.0.1:9: nothing answers there \(.*refused.*\)"),
        ("ray://127.0.0.1:9", "--ray ray://127.0.0.1:9: nothing answers there"),
        ("127.0.0.1:99999", "--ray 127.0.0.1:99999: nothing answers there"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, message: str, plan: Plan):
    with pytest.raises(UserError, match=f"^{message}"):
        check_ray(address, plan)


@pytest.mark.usefixtures("some_ray")
def test_auto_follows_the_environment(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    check_ray("auto", plan)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="nothing answers there"):
        check_ray("auto", plan)
    check_ray("local", plan)


@pytest.mark.usefixtures("some_ray")
def test_a_setting_cannot_choose_its_gpu(plan: Plan):
    first, second = plan.settings
    other = replace(second, config=second.config.model_copy(update={"device": "cuda:1"}))
    message = r"^device=cuda:1: --ray assigns the GPUs itself; give device=cuda$"
    with pytest.raises(UserError, match=message):
        check_ray("local", replace(plan, settings=(first, other)))


@pytest.mark.usefixtures("some_ray")
def test_a_finished_comparison_joins_no_cluster(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    def must_not_connect(*args: object) -> None:
        raise AssertionError("a cluster is joined")

    monkeypatch.setattr(worker_pool, "connect", must_not_connect)
    compare(copied, [], ray="local")


BIG = {"CPU": 16.0, "memory": 64.0 * GIB}
GPUS = {"CPU": 10.0, "GPU": 4.0, "memory": 40.0 * GIB}


@pytest.mark.parametrize(
    ("overrides", "machines", "gpus", "cpus"),
    [
        ((), [BIG], 0, 1),
        (("threads=3",), [BIG], 0, 3),
        (("threads=32",), [BIG], 0, 16),  # more than any machine has would wait forever
        (("device=auto",), [BIG], 0, 1),
        (("device=cuda",), [BIG], 0, 1),
        (("device=auto",), [BIG, GPUS], 1, 2),  # its share of 10 cores for 4 GPUs, whole
        (("device=cuda", "threads=1"), [GPUS], 1, 1),
        # not more than its share: the trials on the other GPUs need cores, too
        (("device=cuda", "threads=8"), [GPUS], 1, 2),
        (("device=cuda",), [{"CPU": 2.0, "GPU": 8.0}], 1, 0.25),
        (("device=auto",), [{**BIG, "GPU": 0.5}], 0, 1),
        (("device=cpu",), [GPUS], 0, 1),
        ((), [{"CPU": 0.0}], 0, 1),  # a head node whose cluster grows on demand
    ],
)
def test_what_a_trial_gets(
    tiny: Callable[..., Config], overrides, machines, gpus: int, cpus: float
):
    resources = estimate_resources(tiny("threads=0", *overrides), machines, (16, 8))
    assert (resources.gpus, resources.cpus) == (gpus, cpus)
    variables = task_options(resources)["runtime_env"]["env_vars"]
    assert variables["OMP_NUM_THREADS"] == str(max(1, int(cpus)))
    assert (variables.get("CUDA_VISIBLE_DEVICES") == "") == (gpus == 0)


def test_memory_includes_the_cached_images_and_the_batch(tiny: Callable[..., Config]):
    def memory(*overrides: str, available: float = 64.0) -> float:
        config = tiny("input_size=416", "train.batch_size=16", *overrides)
        machine = {**BIG, "memory": available * GIB}
        return estimate_resources(config, [machine], (20000, 1000)).memory / GIB

    validation = 1000 * 416 * 416 * 3 / GIB
    alone = memory("data.cache=none")
    assert 2.0 < alone < 2.6  # measured: 2.1 GiB
    # 20,000 images exceed cache_gb
    assert memory() == pytest.approx(alone + 4.0 + validation, abs=0.01)
    assert memory("data.cache_gb=20") == pytest.approx(alone + 21 * validation, abs=0.01)
    assert memory("data.cache=disk") == alone
    assert memory(available=3) == 3  # it is tried nevertheless
