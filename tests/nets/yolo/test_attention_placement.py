"""Every block at every site: it runs, starts as the identity if asked to, and trains."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nets import attention
from nets.attention import IdentityStart
from nets.attention.conformance import open_gates
from nets.io.weights import load_weights, read_weights
from nets.losses.yolo_loss import YoloLoss
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny
from utils.core.schema import AttentionConfig, LossConfig

SIZE = (64, 96)
CLASSES = 2
STILL = (
    1e-15  # float64: what canceling gradients leave; the slowest parameter moves 100 times as far
)
SELF_STARTING = [
    name
    for name in attention.names()
    if not isinstance(attention.build(name, 64, "identity"), IdentityStart)
]
# one or two of each family; the conformance checks are quick for all
QUICK = [
    "se",
    "cbam",
    "eca",
    "ca",
    "gc",
    "gct",
    "simam",
    "ge",
    "self_attention",
    "non_local",
    "mhsa",
    "stn",
    "sk",
]
BLOCKS = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in attention.names()
]


@pytest.fixture(scope="module")
def plain() -> YOLOv4Tiny:
    """A network whose weights and statistics are not those of the start, as after training."""
    torch.manual_seed(1)
    network = open_gates(YOLOv4Tiny(CLASSES))
    for predict in (network.predict32, network.predict16):
        nn.init.normal_(predict.weight, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def weights(plain: YOLOv4Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "plain.pt"
    torch.save(plain.state_dict(), path)
    return path


def bits(maps: list[Tensor]) -> Tensor:
    """Every bit of the raw maps: -0.0 and 0.0 differ."""
    flat = torch.cat([m.flatten() for m in maps])
    return flat.view({torch.float32: torch.int32, torch.bfloat16: torch.int16}[flat.dtype])


@torch.inference_mode()
def run(
    network: nn.Module,
    precision: str = "fp32",
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(
        memory_format=layout
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return bits(network.to(memory_format=layout)(images))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_pretrained_network_keeps_every_bit_with_a_block_at_all_sites(name, plain, weights):
    carrying = YOLOv4Tiny(CLASSES, sites=dict.fromkeys(SITES, name), init="identity").eval()
    report = load_weights(carrying, read_weights(weights))
    assert len(report.matched) == report.total and not report.mismatched and not report.unexpected
    assert all(left.startswith("attention.") for left in report.missing)
    for precision in ("fp32", "bf16"):
        for layout in (torch.contiguous_format, torch.channels_last):
            expected, got = run(plain, precision, layout), run(carrying, precision, layout)
            assert torch.equal(expected, got), f"{precision}, {layout}"
    paper = nn.ModuleDict(
        {site: attention.build(name, channels) for site, channels in SITES.items()}
    ).eval()
    carrying.attention = open_gates(paper)
    assert not torch.equal(run(plain), run(carrying)), (
        "with its gates open the block must change the outputs"
    )


@pytest.mark.slow
@pytest.mark.parametrize("site", list(SITES))
@pytest.mark.parametrize("name", QUICK)
def test_a_pretrained_network_keeps_every_bit_with_a_block_at_one_site(name, site, plain):
    expected = {precision: run(plain, precision) for precision in ("fp32", "bf16")}
    plain.attention[site] = attention.build(name, SITES[site], "identity").eval()
    try:
        for precision, wanted in expected.items():
            assert torch.equal(run(plain, precision), wanted), precision
    finally:
        del plain.attention[site]


# training


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Two noise images with two objects each; feat2 has several keys even when sub-sampled.

    The contrast is so strong that the untrained network tells the images apart: on features that
    are all but equal, a block that normalizes over the images could not learn.
    """
    torch.manual_seed(2)
    corners = torch.rand(2, 2, 2) * torch.tensor([40.0, 70.0])
    boxes = torch.cat([corners, corners + 16 + 32 * torch.rand(2, 2, 2)], 2)
    return 1000 * torch.rand(2, 3, 128, 96), boxes, torch.randint(0, CLASSES, (2, 2))


def train(
    blocks: dict[str, nn.Module], plain: YOLOv4Tiny, steps: int = 8
) -> tuple[list[float], list[str]]:
    """SGD on the blocks alone, through the rest of the network and its loss.

    Returns the losses, and the parameters that never moved.
    """
    network = YOLOv4Tiny(CLASSES)
    network.load_state_dict(plain.state_dict())
    network.eval().requires_grad_(False)  # batch statistics would undo what a gate scales
    network.attention = nn.ModuleDict(blocks).train()
    network.double()  # float32 would lose the first small steps behind a gate that just opens
    before = {
        name: parameter.detach().clone() for name, parameter in network.attention.named_parameters()
    }
    criterion, (images, boxes, labels) = YoloLoss(plain.coder, LossConfig()), batch()
    optimizer = torch.optim.SGD(network.attention.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = criterion(network(images.double()), boxes, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.attention.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    exempt = {
        f"{site}.{name}"
        for site, block in blocks.items()
        for name in getattr(block, "zero_gradient", ())
    }
    moved = {
        name
        for name, now in network.attention.named_parameters()
        if (now - before[name]).abs().max() > STILL
    }
    return losses, sorted(before.keys() - moved - exempt)


# feat2 has 2x2 cells here, which become one key; its weight is 1 whatever the query is
ONE_KEY = {"clo": ["feat2.block.far.query.bias", "feat2.block.far.query.weight"]}


@pytest.mark.parametrize("name", BLOCKS)
def test_training_moves_every_parameter_from_the_identity_and_lowers_the_loss(name, plain):
    blocks = {site: attention.build(name, SITES[site], "identity") for site in AttentionConfig().at}
    losses, stuck = train(blocks, plain)
    assert stuck == ONE_KEY.get(name, [])
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", SELF_STARTING)
def test_a_naive_wrapper_would_never_train(name, plain):
    """What `build` avoids: a gate around an identity block, where each keeps the other shut."""
    blocks = {
        site: IdentityStart(attention.build(name, SITES[site])) for site in AttentionConfig().at
    }
    _, stuck = train(blocks, plain, steps=4)
    assert {f"{site}.alpha" for site in blocks} <= set(stuck)
    parameters = {
        f"{site}.{name}" for site, block in blocks.items() for name, _ in block.named_parameters()
    }
    exempt = {f"{site}.{name}" for site, block in blocks.items() for name in block.zero_gradient}
    assert set(stuck) == parameters - exempt
