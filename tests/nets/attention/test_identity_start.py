"""`attention.init: identity`, and the dead wrapper that it must not be."""

import pytest
import torch

from nets import attention
from nets.attention import IdentityStart
from nets.attention.conformance import leaves_the_identity

SELF_STARTING = {"self_attention", "pam", "cam", "danet", "ccnet", "gc", "non_local", "stn", "gct"}


@pytest.mark.parametrize("name", attention.names())
def test_only_blocks_that_do_not_start_as_identity_are_wrapped(name):
    assert isinstance(attention.build(name, 64, "identity"), IdentityStart) == (
        name not in SELF_STARTING
    )
    assert not isinstance(attention.build(name, 64), IdentityStart)


@pytest.mark.parametrize(
    ("spec", "wrapped"),
    [
        ({"name": "gc", "fusion": "mul"}, True),
        ({"name": "gc", "fusion": "both"}, True),
        ({"name": "danet", "residual": "both"}, True),
        ({"name": "non_local", "bn": False}, False),
        ({"name": "stn", "mode": "blend", "transform": "attention"}, False),
    ],
)
def test_the_options_decide_whether_a_block_starts_as_identity(spec, wrapped):
    block = attention.build(spec, 64, "identity")
    x = torch.randn(2, 64, 5, 7)
    assert isinstance(block, IdentityStart) == wrapped
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", ["self_attention", "cam", "danet", "ccnet", "gc", "non_local"])
def test_a_naive_wrapper_around_a_closed_gate_never_trains(name):
    """The failure that `build` avoids: with it, the check of conformance must fail."""

    class Naive(IdentityStart):
        identity_at_start = True  # so that the check takes the wrapper as it is

    with pytest.raises(AssertionError, match="never moves from the identity: alpha, "):
        leaves_the_identity(lambda: Naive(attention.build(name, 32)), 32)
    leaves_the_identity(lambda: attention.build(name, 32, "identity"), 32)


@pytest.mark.parametrize("name", attention.names())
def test_wrapped_blocks_show_their_attention(name):
    x = torch.randn(1, 64, 5, 7)
    assert (
        attention.build(name, 64, "identity").attention(x).keys()
        == attention.build(name, 64).attention(x).keys()
    )


@pytest.mark.parametrize("name", attention.names())
def test_training_from_the_identity_lowers_the_loss(name):
    block = attention.build(name, 32, "identity").train()
    x = torch.randn(4, 32, 6, 6)
    target = 0.5 * x + 0.2 * torch.randn(4, 32, 6, 6)
    steps = torch.optim.AdamW(block.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        loss = (block(x) - target).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert min(losses[5:]) < losses[0]


def test_the_identity_survives_a_state_dict():
    block, other = attention.build("se", 16, "identity"), attention.build("se", 16, "identity")
    block.alpha.data.fill_(0.7)
    other.load_state_dict(block.state_dict())
    x = torch.randn(1, 16, 3, 3)
    assert torch.equal(block(x), other(x)) and not torch.equal(block(x), x)
