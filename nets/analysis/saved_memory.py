"""What a block or a network keeps between the forward and the backward pass."""

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(block: nn.Module, x: Tensor) -> int:
    """Count the bytes that the forward pass saves for the backward pass.

    Args:
        block: an attention block, or a whole network.
        x: its input; it may lie on the meta device.

    Returns:
        The bytes of all saved tensors, without x, the parameters and the buffers.
    """
    given = (x, *block.parameters(), *block.buffers())
    known = {tensor.untyped_storage()._cdata for tensor in given}
    saved = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage  # kept, so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x)
    return sum(storage.nbytes() for storage in saved.values())
