"""Comparison with an independent implementation, after copying the weights."""

import torch
from torch import nn

from nets import attention
from nets.attention.conformance import open_gates, relative_difference


def copy_weights(*pairs):
    """Copy weights and statistics; linear maps and 1x1 convolutions differ in shape only."""
    with torch.no_grad():
        for layer, reference_layer in pairs:
            source, target = layer.state_dict(), reference_layer.state_dict()
            assert source.keys() == target.keys(), (source.keys(), target.keys())
            for key, value in target.items():
                assert value.numel() == source[key].numel()
                value.copy_(source[key].view(value.shape))


def opened(name, channels=256, **options):
    return open_gates(attention.build({"name": name, **options}, channels))


class Adapted(nn.Module):
    """A reference that takes or returns another layout: `call(layer, x)`."""

    def __init__(self, layer, call):
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x):
        return self.call(self.layer, x)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def assert_equal(block, reference, shapes=((2, 256, 5, 9), (1, 256, 13, 7)), tolerance=1e-5):
    """Equal numbers of parameters, and of outputs, in evaluation."""
    assert count(block) == count(reference)
    block.eval(), reference.eval()
    dtype = next(block.parameters(), torch.ones(())).dtype
    for shape in shapes:
        x = torch.randn(shape, dtype=dtype)
        with torch.no_grad():
            assert relative_difference(block(x), reference(x)) < tolerance
