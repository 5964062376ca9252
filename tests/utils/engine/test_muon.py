"""Muon against PyTorch's own, against the singular value decomposition, and against SGD."""

import pytest
import torch
from torch import Tensor, nn

from utils.engine.muon import COEFFICIENTS, ITERATIONS, UPDATE_RMS, Muon, orthogonalize

RMS_OF_ADAMW = 0.2


def well_conditioned(shape: tuple[int, ...], seed: int) -> Tensor:
    """A tensor that is a matrix with singular values from 0.5 to 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).flatten(1)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u @ torch.linspace(0.5, 1, len(values)).diag() @ v).view(shape)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9 has no Muon")
@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (16, 16)])
def test_parameters_are_updated_as_by_pytorch(shape: tuple[int, int]):
    start, bias = torch.randn(shape), torch.randn(5)
    ours, theirs = ([start.clone(), bias.clone()] for _ in range(2))
    muon = Muon(ours[:1], [{"params": ours[1:], "weight_decay": 0.01}], 0.02, 0.9, 0.1)
    muon._dtype = torch.bfloat16
    reference = torch.optim.Muon(
        theirs[:1],
        lr=0.02 * UPDATE_RMS / RMS_OF_ADAMW,
        weight_decay=0.1 * RMS_OF_ADAMW / UPDATE_RMS,  # decay is relative to the learning rate
        ns_steps=ITERATIONS,
        adjust_lr_fn="match_rms_adamw",
    )
    sgd = torch.optim.SGD(theirs[1:], 0.02, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step in range(5):
        for parameters in (ours, theirs):
            parameters[0].grad = well_conditioned(shape, step)
            parameters[1].grad = torch.randn(5, generator=torch.Generator().manual_seed(step))
        for optimizer in (muon, reference, sgd):
            optimizer.step()
    moved = (theirs[0] - start).norm()
    assert moved > 0.1 and (ours[0] - theirs[0]).norm() < 0.01 * moved  # bf16
    torch.testing.assert_close(ours[1], theirs[1])


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (24, 8, 3, 3), (128, 8, 1, 1)])
def test_singular_values_come_close_to_one(shape: tuple[int, ...]):
    weight = well_conditioned(shape, 0)
    matrix = orthogonalize(weight).flatten(1)
    u, values, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    values /= values.norm()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(matrix.double(), u @ values.diag() @ v, atol=1e-4, rtol=0)


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
