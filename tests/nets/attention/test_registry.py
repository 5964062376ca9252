"""Names, options and `phi`."""

import math
import re
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from nets import attention, load_model
from nets.attention import blocks, registry
from nets.attention.conformance import random_features
from nets.io import checkpoints
from nets.yolo.yolov4_tiny import build_model
from utils.core.errors import UserError
from utils.core.schema import Config

DIVISORS = "; expected one of: 1, 2, 4, 8, 16, 32, 64"


def test_names_are_sorted():
    assert attention.names() == sorted(attention.names())


@pytest.mark.parametrize("name", attention.names())
def test_every_block_names_its_paper_and_its_file_explains_it(name):
    info = attention.block_info(name)
    assert "arXiv" in info.paper and info.family
    head = sys.modules[info.factory.__module__].__doc__
    assert "arXiv" in head and "(B, C, H, W)" in head
    assert re.search(r"\by(_\w)? = ", head)
    assert name in head or info.factory.__module__.endswith(f".{name}")


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, None), ("none", None), (None, None), (1, "se"), (2, "cbam"), (3, "eca"), (4, "ca")],
)
def test_numbers_keep_the_meaning_of_the_reference(number, name):
    block = attention.build(number, 64)
    assert type(block) is (nn.Identity if name is None else attention.block_info(name).factory)
    assert attention.describe(number) == (name or "none")


def test_options_reach_the_block():
    assert attention.build({"name": "se", "reduction": 8}, 64).fc[0].out_features == 8
    assert attention.build(
        {"name": 2, "kernel_size": 3}, 64
    ).spatialattention.conv1.kernel_size == (3, 3)
    assert len(attention.build({"name": "sk", "kernels": [3, 5, 7]}, 64).paths) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cbma", "phi: unknown attention block 'cbma'; did you mean 'cbam'?"),
        (7, "phi: unknown attention block '7'; expected one of: none, a2, "),
        (True, "phi: expected a number 0 to 4, a name or {name: ..., option: value}, got True"),
        ({"name": "none", "reduction": 8}, "phi: none takes no options, got reduction"),
        (
            {"name": "cbam", "reducton": 8},
            "cbam: unknown option 'reducton'; did you mean 'reduction'?",
        ),
        ({"name": "cam", "reduction": 8}, "cam: unknown option 'reduction'; it has no options"),
        ({"name": "se", "reduction": "8"}, "se.reduction: expected a valid integer, got '8'"),
        ({"name": "se", "reduction": 8.5}, "se.reduction: expected a valid integer, got 8.5"),
        ({"name": "se", "reduction": 8.0}, "se.reduction: expected a valid integer, got 8.0"),
        ({"name": "se", "reduction": True}, "se.reduction: expected a valid integer, got True"),
        (
            {"name": "se", "reduction": 0},
            "se.reduction: expected a value greater than or equal to 1, got 0",
        ),
        ({"name": "se", "bias": 1}, "se.bias: expected a valid boolean, got 1"),
        ({"name": "cbam", "kernel_size": 5}, "cbam.kernel_size: expected 3 or 7, got 5"),
        ({"name": "eca", "kernel_size": 4}, "eca.kernel_size: expected an odd number, got 4"),
        (
            {"name": "gsop", "dim": 1},
            "gsop.dim: expected a value greater than or equal to 2, got 1",
        ),
        (
            {"name": "ca", "activation": "gelu"},
            "ca.activation: expected 'relu' or 'hardswish', got 'gelu'",
        ),
        (
            {"name": "mhsa", "heads": 7},
            f"mhsa.heads: 7 does not divide 64 channels{DIVISORS}",
        ),
        (
            {"name": "emsa", "heads": 3},
            f"emsa.heads: 3 does not divide 64 channels{DIVISORS}",
        ),
        ({"name": "mhsa", "dropout": 1.0}, "mhsa.dropout: expected a value less than 1, got 1.0"),
        (
            {"name": "lka", "kernel_size": 23},
            "lka.kernel_size: expected an odd number after division by the dilation, rounded up, "
            "got 23 / 3 = 8",
        ),
        (
            {"name": "lska", "kernel_size": 21},
            "lska.kernel_size: expected 7, 11, 23, 35, 41 or 53, got 21",
        ),
        (
            {"name": "ge", "extent": 0},
            "ge.extent: 0 needs ge.gather=pool; expected 2, 4, 8 or 16",
        ),
        ({"name": "ge", "extent": 3}, "ge.extent: expected 0, 2, 4, 8 or 16, got 3"),
        ({"name": "fca", "size": 5}, "fca.size: expected a value greater than or equal to 7"),
        ({"name": "fca", "frequencies": 3}, "fca.frequencies: expected 1, 2, 4, 8, 16 or 32"),
        ({"name": "simam", "e_lambda": 0}, "simam.e_lambda: expected a value greater than"),
        ({"name": "mlca", "local_weight": 1.5}, "mlca.local_weight: expected a value less than"),
        ({"name": "caa", "pool": 4}, "caa.pool: expected an odd number, got 4"),
        ({"name": "sk", "kernels": [3, 4]}, "sk.kernels: expected an odd number, got [3, 4]"),
        ({"name": "sk", "kernels": []}, "sk.kernels: expected at least one odd number, got []"),
        (
            {"name": "psa", "kernels": [3, 5]},
            "psa.groups: expected one number per kernel (2), got 4",
        ),
        (
            {"name": "psa", "kernels": [3, 5, 7], "groups": [1, 1, 1]},
            f"psa.kernels: 3 branches do not divide 64 channels{DIVISORS}",
        ),
        (
            "no_such_package:Block",
            "phi: cannot import 'no_such_package:Block': ModuleNotFoundError",
        ),
        ("sys:exit", "phi: 'sys:exit' is not a subclass of torch.nn.Module"),
        ("builtins:exec", "phi: 'builtins:exec' is not a subclass of torch.nn.Module"),
        (":Block", "phi: cannot import ':Block': ValueError"),
        ("os:", "phi: module 'os' has no class ''"),
        ("../x:Block", "phi: cannot import '../x:Block': TypeError"),
        ("x" * 10**5, "phi: unknown attention block 'xxx"),
        ({"name": "se", "reduction": 10**30}, "se.reduction: expected a value less than or equal"),
        ({"name": "window", "shift": 7}, "window.shift: expected 0 to 6 (window - 1), got 7"),
        ({"name": "dat", "groups": 3}, "dat.groups: 3 does not divide 8 heads; expected one of: 1"),
        ({"name": "clo", "local_heads": 9}, "clo.local_heads: expected 0 to 8 (heads), got 9"),
        ({"name": "psa_yolo", "ratio": 0}, "psa_yolo.ratio: expected a value greater than 0"),
        ({"name": "eca", "b": math.nan}, "eca.b: expected a value"),
        ({"name": "sk", "kernels": [3] * 10**5}, "sk.kernels: expected at most 16 items, got [3"),
        (
            {"name": "stn", "grid": 64, "hidden": 4096},
            "phi: stn(grid=64, hidden=4096) has 68,870,778,886 parameters for 64 channels; "
            "expected at most 100,000,000",
        ),
        (
            "nets.attention.blocks.cbam:CBMA",
            "phi: module 'nets.attention.blocks.cbam' has no class 'CBMA'; did you mean 'CBAM'?",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(spec, message):
    with pytest.raises(UserError) as error:
        attention.build(spec, 64)
    told = str(error.value)
    assert told.startswith(message) and "\n" not in told and len(told) < 500


def test_shuffle_needs_an_even_number_of_channels():
    with pytest.raises(UserError, match=r"^shuffle: expected an even number of channels, got 15$"):
        attention.build("shuffle", 15)


def test_unknown_init():
    with pytest.raises(UserError, match=r"attention.init: expected paper or identity, got 'papr'"):
        attention.build("se", 64, "papr")


def test_phi_is_expanded_to_sites():
    at = ["feat1", "upsample"]
    assert attention.parse_phi("cbam", at) == {"feat1": "cbam", "upsample": "cbam"}
    assert attention.parse_phi(3, at) == {"feat1": 3, "upsample": 3}
    with_options = {"name": "cbam", "reduction": 8}
    assert attention.parse_phi(with_options, at) == {
        "feat1": with_options,
        "upsample": with_options,
    }
    mixed = {"feat1": "eca", "feat2": with_options, "stem": "none", "upsample": 0}
    assert attention.parse_phi(mixed, at) == {"feat1": "eca", "feat2": with_options}
    assert (
        attention.parse_phi(0, at)
        == attention.parse_phi(None, at)
        == attention.parse_phi({}, at)
        == {}
    )


@pytest.mark.parametrize(
    "phi",
    ["cbma", {"feat1": "ecaa"}, {"name": "se", "ratio": 8}, {"feat1": {"name": "se", "b": 1}}],
)
def test_phi_with_a_mistake(phi):
    with pytest.raises(UserError):
        attention.parse_phi(phi, ["feat1"])


def test_a_block_needs_a_site():
    with pytest.raises(UserError, match=r"attention.at: expected at least one site for phi=se"):
        attention.parse_phi("se", [])
    assert attention.parse_phi("none", []) == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("def f(: pass", "SyntaxError"),
        ("import missing_package", "ModuleNotFoundError: No module named 'missing_package'"),
        ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
    ],
)
def test_a_users_module_that_fails_on_import(code, reason, tmp_path, monkeypatch):
    (tmp_path / "failing_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        attention.build("failing_module:Block", 16)
    told = str(error.value)
    assert told.startswith(f"phi: cannot import 'failing_module:Block': {reason}")
    assert "\n" not in told and len(told) < 500


def test_describe():
    assert attention.describe({"name": 2, "reduction": 16}) == "cbam(reduction=16)"
    assert (
        attention.describe({"name": "psa", "kernels": [3, 5], "groups": [1, 2]})
        == "psa(kernels=[3, 5], groups=[1, 2])"
    )
    assert attention.describe("mine.blocks:Mine") == "mine.blocks:Mine"


def test_a_new_block_is_one_new_file(tmp_path, monkeypatch):
    """A module in the folder of the blocks is found, registered and built; nothing else changes."""
    (tmp_path / "scale.py").write_text(
        "from torch import nn\n"
        "from nets.attention.registry import register\n"
        "@register('double', family='user', paper='none')\n"
        "class Double(nn.Module):\n"
        "    def __init__(self, channels, *, factor: float = 2.0):\n"
        "        super().__init__()\n"
        "        self.factor = factor\n"
        "    def forward(self, x):\n"
        "        return self.factor * x\n"
    )
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry._discover.cache_clear()
    try:
        assert set(attention.names()) >= {"se", "cot", "double"}
        assert torch.equal(
            attention.build({"name": "double", "factor": 3.0}, 1)(torch.ones(1)),
            torch.full((1,), 3.0),
        )
    finally:
        registry._discover.cache_clear()
        sys.modules.pop("nets.attention.blocks.scale", None)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'se' is registered twice"):
        attention.register("se", family="channel", paper="")(nn.Linear)
    se = registry.block_info("se").factory
    namesake = type(se.__name__, (nn.Module,), {"__module__": "mine"})
    with pytest.raises(ValueError, match="'se' is registered twice"):
        attention.register("se", family="channel", paper="")(namesake)
    reloaded = type(se.__name__, (nn.Module,), {"__module__": se.__module__})
    try:
        assert attention.register("se", family="channel", paper="")(reloaded) is reloaded
    finally:
        registry._registered["se"] = replace(registry.block_info("se"), factory=se)


def test_a_block_of_the_users_own_needs_no_base_class():
    block = attention.build({"name": "user_blocks:Good", "kernel": 5}, 16, "identity")
    x = random_features(16)
    assert torch.equal(block(x), x)
    assert attention.build("user_blocks:Good", 16).training
    assert attention.parse_phi("user_blocks:Good", ["feat1"]) == {"feat1": "user_blocks:Good"}


@pytest.mark.parametrize("size", [(7, 5), [7, 5]])
def test_an_option_may_be_a_tuple_which_files_hold_as_a_list(size, tmp_path):
    config = Config(phi={"feat1": {"name": "user_blocks:Sized", "size": size}}, device="cpu")
    network = build_model(config, 2)
    checkpoints.save(tmp_path / "a.pt", checkpoints.describe(network, config, ["a", "b"]))
    for one in (network, load_model(tmp_path / "a.pt").network):
        assert one.attention["feat1"].size == (7, 5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "user_blocks:Goodd",
            "phi: module 'user_blocks' has no class 'Goodd'; did you mean 'Good'?",
        ),
        (
            "user_blocks:Strided",
            "user_blocks:Strided maps (2, 16, 13, 9) to (2, 16, 7, 9); expected one tensor",
        ),
        (
            "user_blocks:Pair",
            "user_blocks:Pair maps (2, 16, 13, 9) to tuple; expected one tensor of the same shape",
        ),
        (
            "user_blocks:NoChannels",
            "user_blocks:NoChannels: __init__ does not take the channels; expected __init__(",
        ),
        ("user_blocks:Needs", "user_blocks:Needs.kernel: a value is required, it has no default"),
        (
            {"name": "user_blocks:Good", "kernel": "3"},
            "user_blocks:Good.kernel: expected a valid integer, got '3'",
        ),
        (
            {"name": "user_blocks:Good", "kernl": 3},
            "user_blocks:Good: unknown option 'kernl'; did you mean 'kernel'?",
        ),
        (
            {"name": "user_blocks:Good", "kernel": 4},
            "user_blocks:Good fails for 16 channels: RuntimeError",
        ),
        (
            {"name": "user_blocks:Sized", "size": [7, "5"]},
            "user_blocks:Sized.size: expected a valid tuple, got [7, '5']",
        ),
        ("user_blocks:Exits", "user_blocks:Exits fails for 16 channels: SystemExit: 0"),
        ("user_blocks:torch", "phi: 'user_blocks:torch' is not a subclass of torch.nn.Module"),
    ],
)
def test_a_users_block_with_a_mistake(spec, message):
    with pytest.raises(UserError) as error:
        attention.build(spec, 16)
    assert str(error.value).startswith(message)
