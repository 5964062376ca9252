"""The network: size, cost, shapes, attention sites, and equality with Darknet's description."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cfg_interpreter import CfgSections, Interpreter, read_cfg_sections
from darknet_files import cfg_text
from torch import Tensor

from nets.analysis.flops import count_parameters, measure_cost
from nets.io.darknet import read_darknet
from nets.yolo.box_coder import DARKNET, BoxCoder, flatten_maps
from nets.yolo.yolov4_tiny import SITES_BY_HEADS, YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError

STRIDE = {  # of each site, from the cfg: what the site's map is downsampled by
    "stem": 4, "csp1": 4, "stage1": 4, "csp2": 8, "stage2": 8, "csp3": 16, "stage3": 16,
    "feat1": 16, "feat2": 32, "lateral": 32, "upsample": 16, "head32": 32, "head16": 16,
    "feat0": 8, "upsample8": 8, "head8": 8,
}  # fmt: skip
HEADS = [2, 3]


def network_for(phi: object, classes: int = 20, heads: int = 2, **attention: object) -> YOLOv4Tiny:
    values = {"phi": phi, "attention": attention, "model": {"heads": heads}}
    return build_model(make_config(values), classes)


# What a third head adds, without the prediction layer: two normalized convolutions
THIRD = 256 * 64 + 2 * 64 + 9 * 192 * 128 + 2 * 128


@pytest.mark.parametrize(
    ("phi", "classes", "heads", "expected"),
    [
        (0, 20, 2, 5_918_006),
        ("se", 20, 2, 5_961_014),
        ("cbam", 20, 2, 6_004_316),
        ("eca", 20, 2, 5_918_021),
        (0, 80, 2, 6_056_606),
        (0, 20, 3, 5_918_006 + THIRD + 129 * 75),
        (0, 80, 3, 6_056_606 + THIRD + 129 * 255),
    ],
)
def test_parameter_counts(phi: object, classes: int, heads: int, expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(network_for(phi, classes, heads)) == expected


@pytest.mark.parametrize(
    ("heads", "params", "gflops"), [(2, 6_056_606, 6.91), (3, 6_327_453, 8.303)]
)
def test_cost_at_416(heads: int, params: int, gflops: float) -> None:
    with torch.device("meta"):
        network = network_for(0, 80, heads).train()
    cost = measure_cost(network, (416, 416))
    assert cost.params == params
    assert cost.gflops == pytest.approx(gflops, abs=0.005)
    assert network.training, "measuring must leave the mode as it was"


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 32)])
def test_output_shapes(size: tuple[int, int], heads: int) -> None:
    maps = network_for(0, 3, heads).eval()(torch.zeros(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [
        (2, 24, size[0] // stride, size[1] // stride) for stride in (32, 16, 8)[:heads]
    ]


def test_a_third_head_leaves_the_start_of_the_others_as_it_was() -> None:
    """So that a seed compares two heads with three."""
    states = []
    for heads in HEADS:
        torch.manual_seed(3)
        states.append(network_for(0, 3, heads).state_dict())
    two, three = states
    assert all(torch.equal(tensor, three[name]) for name, tensor in two.items())
    added = {name.split(".")[0] for name in three if name not in two}
    assert added == {"reduce8", "head8", "predict8"}
    assert three["predict8.weight"].std() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("heads", HEADS)
def test_attention_at_every_site_sees_its_map_and_trains(heads: int) -> None:
    sites = SITES_BY_HEADS[heads]
    network = network_for(dict.fromkeys(sites, "eca"), 2, heads)
    seen: dict[str, tuple[int, ...]] = {}

    def sample(site: str, out: Tensor) -> None:
        seen[site] = tuple(out.shape)

    for site, block in network.attention.items():
        block.register_forward_hook(lambda _, args, out, site=site: sample(site, out))
    sum(m.square().sum() for m in network(torch.rand(1, 3, 64, 96))).backward()
    assert set(STRIDE) >= set(sites) == set(network.sites)
    assert seen == {
        site: (1, sites[site], 64 // STRIDE[site], 96 // STRIDE[site]) for site in sites
    }
    assert list(seen) == list(sites), "they must be in the order of the forward pass"
    for site, block in network.attention.items():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters()), site


@pytest.mark.parametrize(
    ("site", "changed"),
    [
        ("feat1", [False, True]),
        ("csp3", [True, True]),
        ("upsample", [False, True]),
        ("head32", [True, False]),
        ("head16", [False, True, True]),
        ("csp2", [True, True, True]),
        ("feat0", [False, False, True]),
        ("upsample8", [False, False, True]),
        ("head8", [False, False, True]),
    ],
)
def test_a_site_acts_on_what_follows_it_only(site: str, changed: list[bool]) -> None:
    plain = network_for(0, 2, len(changed)).eval()
    carrying = network_for({site: "se"}, 2, len(changed)).eval()
    carrying.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        pairs = zip(plain(image), carrying(image), strict=True)
        assert [not torch.equal(a, b) for a, b in pairs] == changed


def test_unknown_site_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"attention site 'feat3' does not exist; did you mean 'feat[12]'\?"
    ):
        network_for("se", at=["feat3"])


@pytest.mark.parametrize("phi", ["se", {"head8": "eca"}])
def test_a_site_of_the_third_head_needs_it(phi: object) -> None:
    words = "attention site 'head8' does not exist with model.heads=2; it needs model.heads=3"
    with pytest.raises(UserError, match=words):
        network_for(phi, at=["head8"])


@pytest.mark.parametrize(("heads", "given"), [(2, 9), (3, 6)])
def test_anchors_that_do_not_fit_the_heads_are_refused(heads: int, given: int) -> None:
    words = f"anchors: expected {3 * heads} for model.heads={heads}, got {given}"
    with pytest.raises(UserError, match=words):
        build_model(make_config({"model": {"heads": heads}}), 1, [[1.0, 1.0]] * given)


def test_identity_start_keeps_the_outputs_bit_for_bit() -> None:
    plain = network_for(0).eval()
    carrying = network_for("cbam", init="identity").eval()
    carrying.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(plain(image), carrying(image), strict=True))


def test_prior_sets_the_mean_probabilities() -> None:
    network = network_for(0, 3, heads=3).eval()
    network.set_prior(4.0, [0.7, 0.3, 0.0], (160, 96))
    with torch.no_grad():
        maps = network(torch.rand(2, 3, 160, 96))
    for m, cells in zip(maps, (3 * 5 * 3, 3 * 10 * 6, 3 * 20 * 12), strict=True):
        raw = flatten_maps([m]).sigmoid()
        assert raw[..., 4].mean() * cells == pytest.approx(
            4.0, rel=0.1
        )  # each head expects the image's objects
        assert raw[..., 5:].mean((0, 1)).tolist() == pytest.approx([0.7, 0.3, 0.001], rel=0.1)


@pytest.mark.parametrize("objects", [0.0, 1e6])
def test_prior_is_finite_without_objects_and_with_too_many(objects: float) -> None:
    network = YOLOv4Tiny(2)
    network.set_prior(objects, [1.0, 0.0], (32, 32))
    assert network.predict32.bias.isfinite().all() and network.predict16.bias.isfinite().all()


def test_given_anchors_win_over_fitted_ones_and_those_over_darknets() -> None:
    fitted = [[float(i), float(i + 1)] for i in range(1, 7)]
    given = [[10.0 * i, 5.0] for i in range(1, 7)]
    assert build_model(make_config({}), 1).coder.anchors.tolist() == [
        list(pair) for pair in DARKNET[2].anchors
    ]
    assert build_model(make_config({}), 1, fitted).coder.anchors.tolist() == fitted
    assert (
        build_model(make_config({"model": {"anchors": given}}), 1, fitted).coder.anchors.tolist()
        == given
    )


@pytest.fixture(scope="session", params=HEADS)
def heads(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="session")
def sections(heads: int, tmp_path_factory: pytest.TempPathFactory) -> CfgSections:
    path = tmp_path_factory.mktemp("cfg") / "yolov4-tiny.cfg"
    path.write_text(cfg_text(80, heads=heads))
    return read_cfg_sections(path)


def test_equal_to_darknets_cfg(
    heads: int, sections: CfgSections, darknet_file: Callable[..., Path]
) -> None:
    path = darknet_file(80, heads)
    interpreter = Interpreter(sections, np.fromfile(path, "<f4", offset=20))
    network = network_for(0, 80, heads).eval()
    missing = network.load_state_dict(read_darknet(path), strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, got = interpreter.run(image), network(image)
    assert interpreter.used == len(interpreter.values)
    for theirs, ours in zip(expected, got, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)


def test_default_box_settings_are_the_cfgs(heads: int, sections: CfgSections) -> None:
    layers = [option for kind, option in sections if kind == "yolo"]
    boxes = DARKNET[heads]
    coder = BoxCoder(boxes.anchors, boxes.masks, new_coords=False)
    numbers = [float(value) for value in layers[0]["anchors"].split(",")]
    assert tuple(zip(numbers[::2], numbers[1::2], strict=True)) == boxes.anchors
    masks = tuple(tuple(int(i) for i in layer["mask"].split(",")) for layer in layers)
    assert masks == boxes.masks
    assert {float(layer["scale_x_y"]) for layer in layers} == {coder.scale_x_y} == {1.05}
    standard = YOLOv4Tiny(1).coder
    assert standard.masks == DARKNET[2].masks and not standard.new_coords
