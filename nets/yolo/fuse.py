"""Batch normalization folded into the convolution before it: what inference computes with."""

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose convolutions contain the batch normalizations that follow them.

    Every pair of a convolution and a batch normalization that are neighbors in an `nn.Sequential` becomes one
    convolution with bias; that is all of `ConvBNAct`, and what attention blocks build alike. Pairs that a `forward`
    of its own connects, and normalizations by the batch's statistics, stay as they are. The outputs agree to rounding.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_neighbors(module)
    return network


def _fold_neighbors(sequence: nn.Sequential) -> None:
    names = list(sequence._modules)
    for first, second in pairwise(names):
        conv, norm = sequence.get_submodule(first), sequence.get_submodule(second)
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and norm.running_var is not None
        ):
            setattr(sequence, first, fuse_conv_bn_eval(conv, norm))
            setattr(sequence, second, nn.Identity())
