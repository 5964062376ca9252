"""Blocks with large scores need under 1 GB beyond the input, at batch 16, 26 x 26, 256 channels."""

import pytest
import torch

from nets import attention
from nets.analysis.saved_memory import saved_bytes

LIMIT = 1e9
BATCH = 16
MEASURED_BATCH = 2
SHAPE = (256, 26, 26)
SPECS = [
    *(
        "self_attention",
        "pam",
        "cam",
        "danet",
        "danet_head",
        "non_local",
        "mhsa",
        "emsa",
        "ccnet",
        "gsop",
        "area",
        "psa_yolo",
        "window",
        "biformer",
        "axial",
        "outlook",
        "clo",
        "halo",
        "muse",
        "acmix",
    ),
    *(
        {"name": "non_local", "mode": mode, "sub_sample": False}
        for mode in ("gaussian", "dot_product", "concatenation")
    ),
    {"name": "gsop", "mode": "both"},
]


@pytest.mark.parametrize("spec", SPECS, ids=attention.describe)
def test_saved_activations_stay_under_a_gigabyte(spec):
    """The backward pass holds a gradient beside each saved tensor: at most twice the saved bytes.

    They grow with the batch, so a small one is measured.
    """
    block, x = attention.build(spec, 256), torch.randn(MEASURED_BATCH, *SHAPE, requires_grad=True)
    saved = saved_bytes(block, x) * (BATCH // MEASURED_BATCH)
    assert 0 < 2 * saved < LIMIT, f"{saved / 1e6:.0f} MB saved"


def test_the_measurement_counts_what_is_kept():
    x = torch.randn(MEASURED_BATCH, *SHAPE, requires_grad=True)
    assert saved_bytes(torch.nn.Sigmoid(), x) == 4 * x.numel()  # the output
    assert saved_bytes(torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.Tanh()), x) == 8 * x.numel()
    assert saved_bytes(torch.nn.Conv2d(256, 1, 1), x) == 0  # x and the weights


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=attention.describe)
def test_peak_memory_of_a_training_step(spec):
    """The peak that the allocator reports over forward and backward, on the CPU."""
    from torch.profiler import ProfilerActivity, profile

    block, x = attention.build(spec, 256), torch.randn(BATCH, *SHAPE, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        block(x).sum().backward()
    now = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert 0 < peak < LIMIT, f"{peak / 1e6:.0f} MB"
