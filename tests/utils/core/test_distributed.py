"""Several processes against one: what they exchange, and batch normalization over all of them."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from utils.core import distributed
from utils.core.errors import UserError

STEPS = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two(work: Callable[[Path], None], folder: Path) -> None:
    mp.spawn(_join, (free_port(), work, folder), nprocs=2)


def _join(rank: int, port: int, work: Callable[[Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    work(folder)
    dist.destroy_process_group()


def test_one_process_needs_nothing() -> None:
    distributed.init()
    assert (
        distributed.world_size(),
        distributed.rank(),
        distributed.local_rank(),
        distributed.is_main_process(),
    ) == (
        1,
        0,
        0,
        True,
    )
    distributed.barrier()
    tensor = torch.ones(2)
    assert (
        distributed.all_reduce_sum(tensor) is tensor
        and distributed.all_reduce_mean(tensor) is tensor
    )
    assert distributed.gather([1, 2]) == [1, 2] and distributed.broadcast_from_main(lambda: 3) == 3
    done: list[int] = []
    distributed.main_process_only(done.append)(1)
    with distributed.main_process_first():
        done.append(2)
    assert done == [1, 2]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes, but this machine has 2 GPUs"):
        distributed.init()


def exchange(folder: Path) -> None:
    rank = distributed.rank()
    assert distributed.gather([10 * rank + i for i in range(3 - rank)]) == [0, 10, 1, 11, 2]
    assert distributed.broadcast_from_main(lambda: f"from {rank}") == "from 0"
    with pytest.raises(UserError, match="only the first knows"):
        distributed.broadcast_from_main(refuse)
    own = torch.tensor([1.0 + rank], requires_grad=True)
    assert (
        distributed.all_reduce_sum(own.detach()).item() == 3
        and distributed.all_reduce_mean(own.detach()).item() == 1.5
    )
    (
        distributed.all_reduce_sum(own) * (rank + 5)
    ).sum().backward()  # both processes' results depend on it
    assert own.grad is not None and own.grad.item() == 11

    @distributed.main_process_only
    def write() -> None:
        (folder / str(rank)).touch()

    write()
    distributed.barrier()
    assert [path.name for path in folder.iterdir()] == ["0"]


def refuse() -> None:
    raise UserError("only the first knows")


def test_what_two_processes_exchange(tmp_path: Path) -> None:
    run_two(exchange, tmp_path)


def layers() -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, momentum=None)]
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), norms[0], nn.ReLU(), norms[1], nn.Conv2d(4, 4, 1), norms[2]
    )
    nn.init.uniform_(norms[0].weight)
    return network.double()


def images(step: int) -> Tensor:
    return (
        torch.randn(6, 3, 5, 7, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        * 3
        + 2
    )


def train(network: nn.Module, part: slice, average: bool) -> dict[str, Tensor]:
    for step in range(STEPS):
        network.zero_grad()
        weights = torch.linspace(-1, 1, 6, dtype=torch.float64)[part, None, None, None]
        (network(images(step)[part]).pow(3) * weights).mean().backward()
    kept = {
        f"gradient of {name}": p.grad
        for name, p in network.named_parameters()
        if p.grad is not None
    }
    if average:
        for gradient in kept.values():
            dist.all_reduce(gradient)
            gradient /= 2
    return {**kept, **network.state_dict(), "evaluated": network.eval()(images(9))}


def half(folder: Path) -> None:
    part = slice(3 * distributed.rank(), 3 * distributed.rank() + 3)
    torch.save(
        train(distributed.synchronize_batch_norms(layers()), part, True),
        folder / f"{distributed.rank()}.pt",
    )


def test_batch_norm_over_two_processes_is_that_over_the_whole_batch(tmp_path: Path) -> None:
    run_two(half, tmp_path)
    expected = train(layers(), slice(0, 6), False)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(
                found[name], tensor, msg=lambda text, at=name: f"{at}: {text}"
            )
