"""Conformance checks for attention blocks, run by the tests and by `nets.attention.check`.

A check takes `make`, which builds a fresh block, and the number of channels; it raises
an AssertionError that says what is wrong. The interface is
`(B, C, H, W) -> (B, C, H, W)`; a block needs no base class.
"""

import copy
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from nets.attention.base import IdentityStart
from utils.core.devices import lay_channels_last

Make = Callable[[], nn.Module]

# (batch, H, W): odd, not square, tiny
SIZES = ((2, 5, 9), (2, 13, 7), (3, 8, 8), (1, 1, 1), (1, 1, 7), (1, 6, 6))
OPENCV = (4, 14)  # the lowest version that blocks are tried in
ZERO = 1e-9  # in float64, gradients that a later step cancels leave rounding noise below 1e-12


def open_gates(block: nn.Module) -> nn.Module:
    """Give constant parameters (gates, zero layers, norms) and running statistics random values.

    A block whose gate is closed would pass many checks without computing anything.
    """
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


def random_features(
    channels: int, batch: int = 2, height: int = 5, width: int = 9, seed: int = 0
) -> Tensor:
    """Return random features `(batch, channels, height, width)`, float32, whose mean is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator) + 0.1


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Return max |actual - expected| / max |expected|."""
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def with_identity_start(block: nn.Module) -> nn.Module:
    """Return the block as `attention.init: identity` uses it."""
    return block if getattr(block, "identity_at_start", False) else IdentityStart(block)


def keeps_the_shape(make: Make, channels: int) -> None:
    """Returns one finite tensor of the input's shape, for any H, W and batch, in both modes."""
    for training in (True, False):
        block = open_gates(make()).train(training)
        for size in SIZES:
            x = random_features(channels, *size)
            y = block(x)
            where = f"{tuple(x.shape)} in {'training' if training else 'evaluation'}"
            kind = type(y).__name__
            assert isinstance(y, Tensor), f"{where}: returns {kind}, expected one tensor"
            assert y.shape == x.shape, f"{where}: returns the shape {tuple(y.shape)}"
            assert y.isfinite().all(), f"{where}: returns values that are not finite"


def leaves_the_input(make: Make, channels: int) -> None:
    """Does not modify its input, neither in the forward nor in the backward pass."""
    block, x = open_gates(make()), random_features(channels)
    before = x.clone()
    block(x)
    assert torch.equal(x, before), "the block modifies its input"
    # as inside a network: not a leaf, needed again by the backward pass
    features = x.requires_grad_() * 1
    before = features.detach().clone()
    (block(features) * random_features(channels, seed=1)).sum().backward()
    assert torch.equal(features.detach(), before), "the block modifies its input in training"


def registers_its_parts(make: Make, channels: int) -> None:
    """Keeps no layer in a plain list, where it would not be trained, moved to a device or saved."""
    for name, module in make().named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            hidden = any(isinstance(item, (nn.Module, nn.Parameter)) for item in _items(value))
            where = f"{name}.{attribute}".lstrip(".")
            kind = type(value).__name__
            assert not hidden, f"'{where}' keeps layers in a plain {kind}: use nn.ModuleList"


def _items(container: list | tuple | dict) -> Iterator:
    for item in container.values() if isinstance(container, dict) else container:
        if isinstance(item, (list, tuple, dict)):
            yield from _items(item)
        else:
            yield item


def learns_everywhere(make: Make, channels: int) -> None:
    """A gradient reaches x and every parameter, except exactly those in `zero_gradient`."""
    block = open_gates(make()).double().train()
    x = random_features(channels, batch=4).double().requires_grad_()
    (block(x) * random_features(channels, batch=4, seed=1)).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > ZERO, "no gradient reaches the input"
    exempt = getattr(block, "zero_gradient", ())
    parameters = dict(block.named_parameters())
    learning = {name for name, parameter in parameters.items() if _learns(parameter)}
    dead = [name for name in parameters if name not in exempt and name not in learning]
    assert not dead, f"no gradient reaches {', '.join(dead)}"
    wrong = [name for name in exempt if name not in parameters or name in learning]
    assert not wrong, (
        f"listed in zero_gradient, but there is a gradient or no such parameter: {', '.join(wrong)}"
    )


def _learns(parameter: Tensor) -> bool:
    gradient = parameter.grad
    if gradient is None or not gradient.isfinite().all():
        return False
    return gradient.abs().max().item() > ZERO


def survives_constant_maps(make: Make, channels: int) -> None:
    """On maps without any contrast, such as after a dead ReLU, output and gradients are finite."""
    for value in (0.0, 3.0):
        block = open_gates(make()).train()
        x = torch.full((2, channels, 5, 9), value, requires_grad=True)
        y = block(x)
        y.sum().backward()
        gradients = [part.grad for part in (x, *block.parameters()) if part.grad is not None]
        assert all(part.isfinite().all() for part in (y, *gradients)), (
            f"maps of {value} everywhere: the output or a gradient is not finite"
        )


def saves_and_loads(make: Make, channels: int) -> None:
    """Gives the same output after its state_dict is loaded into another block."""
    block, other = open_gates(make()), open_gates(make())
    block(random_features(channels))  # updates running statistics
    other.load_state_dict(block.state_dict())
    x = random_features(channels, seed=1)
    assert torch.equal(block.eval()(x), other.eval()(x)), (
        "a block loaded from a state_dict gives a different output"
    )


def evaluates_the_same_twice(make: Make, channels: int) -> None:
    """In eval mode, gives the same output twice and does not change its state."""
    block, x = open_gates(make()).eval(), random_features(channels)
    before = copy.deepcopy(block.state_dict())
    assert torch.equal(block(x), block(x)), "two calls in eval mode differ"
    after = block.state_dict()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert not changed, f"a call in eval mode changes {', '.join(changed)}"


def keeps_images_apart(make: Make, channels: int) -> None:
    """In eval mode, an image's output does not depend on the rest of the batch."""
    block, x = open_gates(make()).eval(), random_features(channels, batch=3)
    alone = torch.cat([block(image) for image in x.split(1)])
    assert relative_difference(block(x), alone) < 1e-5, (
        "an image's output depends on the other images of the batch"
    )


def takes_channels_last(make: Make, channels: int) -> None:
    """Gives the same output for the channels_last memory format."""
    block, x = open_gates(make()).eval(), random_features(channels)
    expected = block(x)
    lay_channels_last(block)
    output = block(x.to(memory_format=torch.channels_last))
    assert relative_difference(output, expected) < 1e-4, "channels_last changes the output"


def trains_in_bfloat16(make: Make, channels: int) -> None:
    """Under bf16 autocast, is close to float32 and has finite gradients."""
    block, x = open_gates(make()).eval(), random_features(channels).requires_grad_()
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [block(x), block(x.bfloat16())]
    for output in outputs:
        assert output.shape == x.shape and output.isfinite().all(), "bf16 autocast: not finite"
        assert relative_difference(output.float(), expected) < 0.1, (
            "bf16 autocast: far from the fp32 output"
        )
    outputs[0].float().square().mean().backward()
    gradients = [part.grad for part in (x, *block.parameters()) if part.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients), (
        "bf16 autocast: gradients are not finite"
    )


def starts_as_identity(make: Make, channels: int) -> None:
    """With `attention.init: identity`, returns x bit for bit, in both modes and under autocast."""
    block = with_identity_start(make())
    for training in (True, False):
        block.train(training)
        for size in SIZES:
            x = random_features(channels, *size)
            shape = tuple(x.shape)
            assert torch.equal(block(x.clone()), x), f"not the identity at start on {shape}"
    with torch.autocast("cpu", torch.bfloat16):
        x = random_features(channels)
        assert torch.equal(block(x.clone()), x), "not the identity at start under bf16 autocast"


def leaves_the_identity(make: Make, channels: int, steps: int = 12) -> None:
    """With `attention.init: identity`, SGD updates every parameter: no gate stays shut."""
    block = with_identity_start(make()).double().train()
    before = {name: parameter.detach().clone() for name, parameter in block.named_parameters()}
    optimizer = torch.optim.SGD(block.parameters(), lr=0.05)
    x = random_features(channels, batch=4).double()
    target = random_features(channels, batch=4, seed=1).double()
    for _ in range(steps):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    exempt = getattr(block, "zero_gradient", ())
    stuck = []
    for name, parameter in block.named_parameters():
        moved = (parameter - before[name]).abs().max().item() > ZERO
        if name not in exempt and not moved:
            stuck.append(name)
    assert not stuck, f"never moves from the identity: {', '.join(stuck)}"


def compiles(make: Make, channels: int) -> None:
    """`torch.compile` captures it as one graph: no control flow depends on values."""
    block, x = open_gates(make()).eval(), random_features(channels)
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    assert relative_difference(compiled(x), block(x)) < 1e-5, "torch.compile changes the output"


def exports_to_onnx(make: Make, channels: int) -> None:
    """Between convolutions, exports to ONNX with a dynamic batch size; runtimes agree."""
    import onnxruntime

    from nets.io.onnx_trace import trace

    block = open_gates(make())
    # OpenCV computes blocks of channels, and joins operators, where convolutions are near
    around = [nn.Conv2d(channels, channels, 1) for _ in range(2)]
    network = nn.Sequential(around[0], block, around[1]).eval().requires_grad_(False)
    model = trace(network, random_features(channels, height=13), ["x"], ["y"]).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = random_features(channels, batch, 13)
        output = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        assert relative_difference(output, network(x)) < 1e-4, (
            f"ONNX Runtime gives a different output at batch {batch}"
        )
    if tuple(map(int, cv2.__version__.split(".")[:2])) >= OPENCV:
        output = _run_in_opencv(model, x[:1])
        assert relative_difference(output, network(x[:1])) < 1e-4, (
            f"OpenCV {cv2.__version__} gives a different output"
        )


def _run_in_opencv(model: bytes, x: Tensor) -> Tensor:
    try:
        network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
        network.setInput(x.numpy())
        return torch.from_numpy(network.forward())
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise AssertionError(f"OpenCV {cv2.__version__} cannot run it: {reason}") from None


CHECKS: dict[str, Callable[[Make, int], None]] = {
    check.__name__: check
    for check in (
        keeps_the_shape,
        leaves_the_input,
        registers_its_parts,
        learns_everywhere,
        survives_constant_maps,
        saves_and_loads,
        evaluates_the_same_twice,
        keeps_images_apart,
        takes_channels_last,
        trains_in_bfloat16,
        starts_as_identity,
        leaves_the_identity,
        compiles,
        exports_to_onnx,
    )
}
