"""What every attention block must do, as plain functions: the tests run them, and so does `nets.attention.check`.

A check takes `make() -> nn.Module`, which builds a fresh block, and the number of channels, and raises AssertionError
with a sentence that says what is wrong. The block needs no base class: `(B, C, H, W) -> (B, C, H, W)` is the interface.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from nets.attention.layers import IdentityStart

Make = Callable[[], nn.Module]
SIZES = (
    (2, 5, 9),
    (2, 13, 7),
    (3, 8, 8),
    (1, 1, 1),
    (1, 1, 7),
    (1, 6, 6),
)  # batch, H, W: odd, not square, tiny
GRADIENT = 1e-9  # float64: what a later step cancels leaves rounding noise below 1e-12


def neutral_gates_opened(block: nn.Module) -> nn.Module:
    """Give every constant parameter (gates, zero layers, norms) and all running statistics random values."""
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.min() == parameter.max():
                parameter.normal_(0.5, 0.3)
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return block


def picture(
    channels: int, batch: int = 2, height: int = 5, width: int = 9, seed: int = 0
) -> Tensor:
    """Random features `(batch, channels, height, width)`, float32, not of mean 0."""
    return (
        torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
        + 0.1
    )


def difference(left: Tensor, right: Tensor) -> float:
    """Largest |left - right| over the largest |right|."""
    return ((left - right).abs().max() / right.abs().max().clamp_min(1e-12)).item()


def keeps_the_shape(make: Make, channels: int) -> None:
    """Any H, W and batch, training and evaluation: one tensor, the shape of the input, finite."""
    for training in (True, False):
        block = neutral_gates_opened(make()).train(training)
        for batch, height, width in SIZES:
            x = picture(channels, batch, height, width)
            y = block(x)
            where = f"{tuple(x.shape)} in {'training' if training else 'evaluation'}"
            assert isinstance(y, Tensor), (
                f"{where}: returns {type(y).__name__}, expected one tensor"
            )
            assert y.shape == x.shape, f"{where}: returns the shape {tuple(y.shape)}"
            assert y.isfinite().all(), f"{where}: returns values that are not finite"


def leaves_the_input(make: Make, channels: int) -> None:
    """X is the same, bit for bit, after forward and backward."""
    block, x = neutral_gates_opened(make()), picture(channels)
    before = x.clone()
    block(x)
    assert torch.equal(x, before), "the block writes into its input"
    features = (
        x.requires_grad_() * 1
    )  # as inside a network: not a leaf, needed again by the backward pass
    kept = features.detach().clone()
    (block(features) * picture(channels, seed=1)).sum().backward()
    assert torch.equal(features.detach(), kept), "the block writes into its input in training"


def registers_its_parts(make: Make, channels: int) -> None:
    """No layer or parameter in a plain list or dictionary, where it would never train, move to a device or be saved."""
    for name, module in make().named_modules():
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") and isinstance(value, (list, tuple, dict)):
                hidden = [
                    item for item in _items(value) if isinstance(item, (nn.Module, nn.Parameter))
                ]
                where = f"{name}.{attribute}".lstrip(".")
                assert not hidden, (
                    f"'{where}' keeps layers in a plain {type(value).__name__}: use nn.ModuleList"
                )


def _items(value: list | tuple | dict) -> Iterator:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (list, tuple, dict)):
            yield from _items(item)
        else:
            yield item


def learns_everywhere(make: Make, channels: int) -> None:
    """With the gates open a gradient reaches x and every parameter (but those the block lists in `zero_gradient`)."""
    block = neutral_gates_opened(make()).double().train()
    x = picture(channels, batch=4).double().requires_grad_()
    (block(x) * picture(channels, batch=4, seed=1)).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > GRADIENT, "no gradient reaches the input"
    exempt = getattr(block, "zero_gradient", ())
    dead = [
        name
        for name, parameter in block.named_parameters()
        if name not in exempt and not _learns(parameter)
    ]
    assert not dead, f"no gradient reaches {', '.join(dead)}"
    known = dict(block.named_parameters())
    wrong = [name for name in exempt if name not in known or _learns(known[name])]
    assert not wrong, (
        f"listed in zero_gradient, but there is a gradient or no such parameter: {', '.join(wrong)}"
    )


def _learns(parameter: Tensor) -> bool:
    gradient = parameter.grad
    return (
        gradient is not None
        and bool(gradient.isfinite().all())
        and gradient.abs().max().item() > GRADIENT
    )


def saves_and_loads(make: Make, channels: int) -> None:
    """A state_dict carries everything: another block that loads it gives the same output."""
    block, other = neutral_gates_opened(make()), neutral_gates_opened(make())
    block(picture(channels))  # moves running statistics
    other.load_state_dict(block.state_dict())
    x = picture(channels, seed=1)
    assert torch.equal(block.eval()(x), other.eval()(x)), (
        "a block loaded from a state_dict gives another output"
    )


def evaluates_the_same_twice(make: Make, channels: int) -> None:
    """In eval mode two calls agree and nothing in the block changes."""
    block, x = neutral_gates_opened(make()).eval(), picture(channels)
    before = copy.deepcopy(block.state_dict())
    assert torch.equal(block(x), block(x)), "two calls in eval mode differ"
    changed = [
        name for name, value in block.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert not changed, f"a call in eval mode changes {', '.join(changed)}"


def keeps_pictures_apart(make: Make, channels: int) -> None:
    """In eval mode an image's output depends on that image alone (a softmax over the batch would not)."""
    block, x = neutral_gates_opened(make()).eval(), picture(channels, batch=3)
    together = block(x)
    alone = torch.cat([block(x[index : index + 1]) for index in range(3)])
    assert difference(together, alone) < 1e-5, (
        "an image's output depends on the other images of the batch"
    )


def takes_channels_last(make: Make, channels: int) -> None:
    """The memory format of x does not change the result."""
    block, x = neutral_gates_opened(make()).eval(), picture(channels)
    expected = block(x)
    got = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert difference(got, expected) < 1e-4, "channels_last changes the output"


def trains_in_bfloat16(make: Make, channels: int) -> None:
    """Under bf16 autocast: near the fp32 output, finite gradients; scores and covariances must not overflow."""
    block, x = neutral_gates_opened(make()).eval(), picture(channels)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = block(x)
        narrow = block(x.bfloat16())
    for output in (got, narrow):
        assert output.shape == x.shape and output.isfinite().all(), "bf16 autocast: not finite"
        assert difference(output.float(), expected) < 0.1, "bf16 autocast: far from the fp32 output"
    got.float().square().mean().backward()
    gradients = [parameter.grad for parameter in block.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients), (
        "bf16 autocast: gradients are not finite"
    )


def starts_as_identity(make: Make, channels: int) -> None:
    """`attention.init: identity`: bit-equal to x, by itself (`identity_at_start`) or in `IdentityStart`."""
    block = at_identity(make())
    for training in (True, False):
        for batch, height, width in SIZES:
            x = picture(channels, batch, height, width)
            assert torch.equal(block.train(training)(x.clone()), x), (
                f"not the identity at start on {tuple(x.shape)}"
            )
    with torch.autocast("cpu", torch.bfloat16):
        x = picture(channels)
        assert torch.equal(block(x.clone()), x), "not the identity at start under bf16 autocast"


def at_identity(block: nn.Module) -> nn.Module:
    """The block as `attention.init: identity` uses it."""
    return block if getattr(block, "identity_at_start", False) else IdentityStart(block)


def leaves_the_identity(make: Make, channels: int, steps: int = 12) -> None:
    """Started as the identity, a few steps of SGD move every parameter: no gate holds another shut."""
    block = at_identity(make()).double().train()
    before = {name: parameter.detach().clone() for name, parameter in block.named_parameters()}
    optimizer = torch.optim.SGD(block.parameters(), lr=0.05)
    x, target = picture(channels, batch=4).double(), picture(channels, batch=4, seed=1).double()
    for _ in range(steps):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    exempt = getattr(block, "zero_gradient", ())
    moved = {
        name: (parameter - before[name]).abs().max().item()
        for name, parameter in block.named_parameters()
    }
    stuck = [
        name for name, distance in moved.items() if name not in exempt and not distance > GRADIENT
    ]
    assert not stuck, f"never moves from the identity: {', '.join(stuck)}"


def compiles(make: Make, channels: int) -> None:
    """torch.compile captures the block as one graph (no Python that depends on values) with the same output."""
    block, x = neutral_gates_opened(make()).eval(), picture(channels)
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    assert difference(compiled(x), block(x)) < 1e-5, "torch.compile changes the output"


def exports_to_onnx(make: Make, channels: int) -> None:
    """ONNX with a free batch size; ONNX Runtime agrees to 1e-4 of the largest value."""
    import onnxruntime

    block, x = neutral_gates_opened(make()).eval(), picture(channels, height=13)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.onnx"
        free = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(
            block,
            (x,),
            path,
            dynamo=True,
            verbose=False,
            input_names=["x"],
            dynamic_shapes=free,
            external_data=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (2, 3):
            x = picture(channels, batch, 13)
            got = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
            assert difference(got, block(x).detach()) < 1e-4, (
                f"ONNX Runtime gives another output at batch {batch}"
            )


CHECKS: dict[str, Callable[[Make, int], None]] = {
    check.__name__: check
    for check in (
        keeps_the_shape,
        leaves_the_input,
        registers_its_parts,
        learns_everywhere,
        saves_and_loads,
        evaluates_the_same_twice,
        keeps_pictures_apart,
        takes_channels_last,
        trains_in_bfloat16,
        starts_as_identity,
        leaves_the_identity,
        compiles,
        exports_to_onnx,
    )
}
