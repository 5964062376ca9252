"""`--ray` without Ray: the command line, what is refused, what a training is given, the time left."""

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import compare as command
from utils.compare.cluster import GIB, options, refuse_early
from utils.compare.cluster import needs as needs_of
from utils.compare.crew import Worker, time_left
from utils.compare.lock import LOCK, locked
from utils.compare.plan import Plan, make_plan, ray_address
from utils.compare.running import compare
from utils.core.errors import UserError
from utils.core.schema import Config

WORDS = ["compare.py", "--config", "shapes.yaml"]


@pytest.mark.parametrize(
    ("words", "address", "overrides"),
    [
        (["train.epochs=2"], None, ["train.epochs=2"]),
        (["--ray"], "local", []),
        (["--ray", "--phi", "none", "se", "train.epochs=2"], "local", ["train.epochs=2"]),
        (
            ["--ray", "data.root=/a/b", "train.epochs=2"],
            "local",
            ["data.root=/a/b", "train.epochs=2"],
        ),
        (["--ray", "auto", "data.root=/a/b"], "auto", ["data.root=/a/b"]),
        (["--ray", "10.0.0.1:6379", "data.root=x:1"], "10.0.0.1:6379", ["data.root=x:1"]),
        (["--ray=ray://head:10001", "train.epochs=2"], "ray://head:10001", ["train.epochs=2"]),
    ],
)
def test_the_address_is_told_from_overrides(
    words: list[str], address, overrides, monkeypatch: pytest.MonkeyPatch
):
    seen = {}
    monkeypatch.setattr(sys, "argv", WORDS + words)
    monkeypatch.setattr(
        "utils.compare.plan.make_plan",
        lambda *args: seen.update(overrides=sorted(args[-1])) or _NoPlan(),
    )
    monkeypatch.setattr(
        "utils.compare.running.compare", lambda plan, words, ray: seen.update(ray=ray)
    )
    monkeypatch.setattr("utils.compare.running.summary", lambda *args: "")
    command.main()
    assert seen == {"ray": address, "overrides": sorted(overrides)}


class _NoPlan:
    out = Path()


def test_an_empty_address_is_this_machine():
    assert ray_address("") == ("local", [])


def test_without_ray_one_line_says_what_to_install(tmp_path: Path):
    code = "import sys; sys.modules['ray'] = None; import compare; from utils.core.cli import run_command as run"
    words = ["--phi", "none", "se", "--out", str(tmp_path / "out"), "--ray", "device=cpu"]
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; run(compare.main)", *WORDS[1:], *words],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --ray: ray is not installed: pip install ray\n"
    assert not (tmp_path / "out").exists()


def test_serial_comparisons_need_no_ray(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    compare(copied, [])


@pytest.fixture
def some_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were installed; these tests do not come as far as using it."""
    monkeypatch.setitem(sys.modules, "ray", sys)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


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
def test_an_address_without_a_cluster_is_refused_at_once(address: str, message: str, finished):
    with pytest.raises(UserError, match=f"^{message}"):
        refuse_early(address, finished[0])


@pytest.mark.usefixtures("some_ray")
def test_auto_follows_the_environment(finished, monkeypatch: pytest.MonkeyPatch):
    refuse_early("auto", finished[0])
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="nothing answers there"):
        refuse_early("auto", finished[0])
    refuse_early("local", finished[0])


@pytest.mark.usefixtures("some_ray")
def test_a_certain_gpu_is_refused(finished):
    plan = make_plan("shapes.yaml", ("none", "se"), overrides=["device=cpu"])
    first, second = plan.variants
    other = replace(second, config=second.config.model_copy(update={"device": "cuda:1"}))
    with pytest.raises(
        UserError, match=r"^device=cuda:1: --ray hands out the GPUs itself; give device=cuda$"
    ):
        refuse_early("local", replace(plan, variants=(first, other)))


BIG = {"CPU": 16.0, "memory": 64.0 * GIB}
GPUS = {"CPU": 10.0, "GPU": 4.0, "memory": 40.0 * GIB}


@pytest.mark.parametrize(
    ("overrides", "machines", "gpus", "cpus"),
    [
        ((), [BIG], 0, 1),
        (("threads=3",), [BIG], 0, 3),
        (("threads=32",), [BIG], 0, 16),  # more than any machine has would wait for ever
        (("device=auto",), [BIG], 0, 1),
        (("device=cuda",), [BIG], 0, 1),
        (("device=auto",), [BIG, GPUS], 1, 2),  # its share of 10 cores for 4 GPUs, whole
        (("device=cuda", "threads=1"), [GPUS], 1, 1),
        (
            ("device=cuda", "threads=8"),
            [GPUS],
            1,
            2,
        ),  # else one training would take the cores of all GPUs
        (("device=cuda",), [{"CPU": 2.0, "GPU": 8.0}], 1, 0.25),
        (("device=auto",), [{**BIG, "GPU": 0.5}], 0, 1),
        (("device=cpu",), [GPUS], 0, 1),
        ((), [{"CPU": 0.0}], 0, 1),  # a head node whose cluster grows on demand
    ],
)
def test_what_a_training_is_given(
    tiny: Callable[..., Config], overrides, machines, gpus: int, cpus: float
):
    config = tiny("threads=0", *overrides)
    found = needs_of(config, machines, (16, 8))
    assert (found.gpus, found.cpus) == (gpus, cpus)
    variables = options(found)["runtime_env"]["env_vars"]
    assert variables["OMP_NUM_THREADS"] == str(max(1, int(cpus)))
    assert (variables.get("CUDA_VISIBLE_DEVICES") == "") == (gpus == 0)


def test_memory_counts_the_cached_pictures_and_the_batch(tiny: Callable[..., Config]):
    def memory(*overrides: str, room: float = 64.0) -> float:
        config = tiny("input_size=416", "train.batch_size=16", *overrides)
        return needs_of(config, [{**BIG, "memory": room * GIB}], (20000, 1000)).memory / GIB

    validation = 1000 * 416 * 416 * 3 / GIB
    alone = memory("data.cache=none")
    assert 2.0 < alone < 2.6  # measured: 2.1 GiB
    assert memory() == pytest.approx(
        alone + 4.0 + validation, abs=0.01
    )  # 20,000 images exceed cache_gb
    assert memory("data.cache_gb=20") == pytest.approx(alone + 21 * validation, abs=0.01)
    assert memory("data.cache=disk") == alone
    assert memory(room=3) == 3  # it is tried nevertheless


@pytest.mark.parametrize(
    ("running", "waiting", "seconds"),
    [
        ([], 0, 0),
        ([], 5, 0),
        ([30], 0, 70),
        ([130], 0, 0),
        ([0, 0], 0, 100),
        ([0, 0], 1, 200),
        ([0, 0], 2, 200),
        ([20, 50], 1, 150),
        ([20, 50, 100], 3, 180),
        ([100], 3, 300),
    ],
)
def test_the_time_left_counts_what_runs_side_by_side(
    running: list[float], waiting: int, seconds: float
):
    assert time_left(100, running, waiting) == seconds


@pytest.mark.usefixtures("some_ray")
def test_a_finished_comparison_joins_no_cluster(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    def must_not_join(*args: object) -> None:
        raise AssertionError("a cluster is joined")

    monkeypatch.setattr("utils.compare.crew.joined", must_not_join)
    compare(copied, [], ray="local")


def test_a_worker_refuses_folders_that_are_not_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place, out = tmp_path / "project", Path("runs") / "out"
    (place / out).mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"cannot open .*\.lock: all machines must see the same folders"
    ):
        Worker().start(place, out, "here, process 1")
    with locked(place / out):
        mark = (place / out / LOCK).read_text(encoding="utf-8")
        assert Worker().start(place, out, mark) == socket.gethostname() and Path.cwd() == place
        with pytest.raises(UserError, match=r"project/runs/out on .* is another folder than here"):
            Worker().start(place, out, "there, process 1")
    with pytest.raises(UserError, match=r"cannot open .*elsewhere"):
        Worker().start(tmp_path / "elsewhere", out, mark)
