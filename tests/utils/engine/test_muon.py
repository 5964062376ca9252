"""Muon against PyTorch's own, against the singular value decomposition, and against SGD."""

import copy

import pytest
import torch
from torch import Tensor, nn

from utils.engine.muon import UPDATE_RMS, Muon, orthogonalize

RMS_OF_ADAMW = 0.2


def train(network: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = 4) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        network.zero_grad()
        x = torch.randn(8, 3, 6, 6, generator=generator)
        network(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9 has no Muon")
@pytest.mark.parametrize("sizes", [(40, 20), (20, 40), (16, 16)])
def test_matrices_are_updated_as_by_pytorch(sizes: tuple[int, int]):
    ours = nn.Sequential(nn.Flatten(), nn.Linear(108, sizes[0], bias=False), nn.Linear(*sizes))
    theirs = copy.deepcopy(ours)
    muon = Muon([one.weight for one in ours[1:]], [{"params": [ours[2].bias]}], 0.02, 0.9, 0.1)
    muon._dtype = torch.bfloat16
    reference = torch.optim.Muon(
        [one.weight for one in theirs[1:]],
        lr=0.02 * UPDATE_RMS / RMS_OF_ADAMW,
        weight_decay=0.1 * RMS_OF_ADAMW / UPDATE_RMS,  # decay is relative to the learning rate
        adjust_lr_fn="match_rms_adamw",
    )
    sgd = torch.optim.SGD([theirs[2].bias], 0.02, momentum=0.9, nesterov=True)
    train(ours, [muon])
    train(theirs, [reference, sgd])
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (24, 8, 3, 3), (128, 8, 1, 1)])
def test_singular_values_come_close_to_one(shape: tuple[int, ...]):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).movedim(1, -1)
    weight = (weight * torch.linspace(0.3, 1, shape[1])).movedim(-1, 1)
    matrix = orthogonalize(weight).flatten(1)
    u, before, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    projected = u.T @ matrix @ v.T
    assert before.max() > 2 * before.min()
    assert projected.diagonal().min() > 0.6 and projected.diagonal().max() < 1.3
    torch.testing.assert_close(projected, projected.diagonal().diag(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_format_and_the_scale_do_not_matter(dtype: torch.dtype):
    weight = torch.randn(24, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    usual = orthogonalize(weight, dtype)
    assert usual.dtype == weight.dtype and usual.shape == weight.shape
    for other in (weight.to(memory_format=torch.channels_last), 1e-4 * weight, 1e4 * weight):
        torch.testing.assert_close(orthogonalize(other, dtype), usual, rtol=0, atol=0.02)


def test_no_gradient_is_no_update():
    weight: Tensor = nn.Parameter(torch.ones(4, 4))
    bias = nn.Parameter(torch.ones(4))
    muon = Muon([weight], [{"params": [bias]}], 0.1, 0.9, 0.1)
    muon.step()
    assert torch.equal(weight, torch.ones(4, 4)) and torch.equal(bias, torch.ones(4))
    weight.grad, bias.grad = torch.zeros(4, 4), torch.zeros(4)  # as of a layer without influence
    muon.step()
    assert weight.isfinite().all() and bias.isfinite().all()
