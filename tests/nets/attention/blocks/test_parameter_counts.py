"""Parameters, worked out from the papers: at 256 channels, and the sum over 128, 256 and 512."""

import pytest

from nets import attention

COUNTS = {
    "se": (8_192, 43_008),
    "se_conv": (33_088, 173_152),
    "eca": (5, 15),
    "gc": (8_753, 44_971),
    "gsop": (230_784, 774_400),
    "cam": (1, 3),
    "cbam": (16_482, 86_310),
    "bam": (17_361, 90_331),
    "ca": (12_320, 64_624),
    "triplet": (300, 900),
    "ese": (65_792, 344_960),
    "gct": (768, 2_688),
    "srm": (1_024, 3_584),
    "fca": (8_192, 43_008),
    "lct": (512, 1_792),
    "nam": (512, 1_792),
    "ge": (8_448, 29_568),
    "scse": (8_721, 44_859),
    "simam": (0, 0),
    "gam": (1_639_680, 8_606_080),
    "ema": (672, 3_472),
    "shuffle": (12, 42),
    "sge": (128, 384),
    "polarized": (132_481, 693_059),
    "parnet": (722_176, 3_789_184),
    "cot": (417_248, 2_184_336),
    "mlca": (10, 30),
    "ela": (2_304, 8_064),
    "caa": (138_240, 713_216),
    "cpca": (127_040, 616_672),
    "lka": (85_248, 413_056),
    "lska": (69_888, 359_296),
    "lsk": (118_470, 586_578),
    "strip": (460_032, 2_412_928),
    "stn": (34_150, 106_546),
    "self_attention": (82_241, 431_203),
    "pam": (82_241, 431_203),
    "danet": (82_242, 431_206),
    "danet_head": (390_994, 2_051_230),
    "non_local": (132_224, 692_160),
    "mhsa": (263_168, 1_379_840),
    "emsa": (266_260, 1_390_690),
    "ccnet": (82_241, 431_203),
    "external": (32_768, 114_688),
    "a2": (65_984, 345_632),
    "sk": (62_528, 283_328),
    "psa": (433_732, 2_276_974),
    "split": (690_048, 3_619_392),
    "area": (277_248, 1_429_120),
    "psa_yolo": (200_960, 1_047_424),
    "mobilevit_v2": (197_633, 1_035_779),
    "window": (264_520, 1_384_572),
    "biformer": (269_824, 1_403_136),
    "dat": (266_624, 1_391_936),
    "axial": (524_800, 2_754_304),
    "outlook": (297_864, 1_562_204),
    "aft": (197_768, 1_036_056),
    "clo": (306_176, 1_587_712),
    "ufo": (263_176, 1_379_864),
    "halo": (198_336, 1_038_240),
    "muse": (469_763, 2_446_985),
    "acmix": (218_414, 1_108_458),
    # two 3x3 convolutions, two norms, cbam with reduction 16
    "basic_block": (1_179_648 + 1_024 + 8_290, 6_193_152 + 3_584 + 43_302),
    # 9 h^2 + (2 C + 4) h + 2 C with h = 6, 12, 25: nearest to C^2 / 8
    "conv_control": (8_000, 2_140 + 8_000 + 32_349),
}
OPTIONS = [
    ({"name": "se", "bias": True}, 8_464),
    ({"name": "gc", "fusion": "both"}, 17_249),
    ({"name": "gsop", "mode": "position"}, 66_368),
    ({"name": "gsop", "mode": "both"}, 297_152),
    ({"name": "cbam", "kernel_size": 3}, 16_402),
    ({"name": "cbam", "reduction": 16}, 8_290),
    ({"name": "cbam", "norm": True}, 16_484),
    (
        {"name": "ca", "reduction": 32, "min_channels": 8, "activation": "hardswish", "bias": True},
        6_680,
    ),
    ({"name": "triplet", "spatial": False}, 200),
    ({"name": "ge", "extent": 4}, 5_632),
    ({"name": "ge", "mlp": True}, 16_912),
    ({"name": "ge", "gather": "pool"}, 0),
    ({"name": "scse", "reduction": 2}, 66_177),
    ({"name": "gam", "groups": 4}, 435_456),
    ({"name": "ema", "groups": 8}, 10_368),
    ({"name": "shuffle", "groups": 8}, 96),
    ({"name": "polarized", "variant": "code"}, 131_328),
    ({"name": "polarized", "variant": "code", "mode": "sequential"}, 111_200),
    ({"name": "parnet", "bias": True}, 722_688),
    ({"name": "ela", "kernel_size": 5, "norm_groups": 32}, 1_792),
    ({"name": "ela", "kernel_size": 5, "width": 8}, 10_752),
    ({"name": "ela", "width": 8}, 14_848),
    ({"name": "ela", "kernel_size": 1, "width": 0, "bias": True}, 66_304),
    ({"name": "caa", "norm": False}, 137_728),
    ({"name": "cpca", "shared": False}, 258_624),
    ({"name": "cpca", "projections": False}, 127_040),
    ({"name": "lska", "kernel_size": 11}, 70_912),
    ({"name": "lska", "kernel_size": 23}, 72_960),
    ({"name": "lka", "projections": True}, 216_832),
    ({"name": "lsk", "projections": True}, 250_054),
    ({"name": "stn", "transform": "attention"}, 34_051),
    ({"name": "stn", "mode": "blend"}, 34_151),
    ({"name": "non_local", "mode": "dot_product"}, 132_224),
    ({"name": "non_local", "mode": "gaussian"}, 66_432),
    ({"name": "non_local", "mode": "concatenation"}, 132_480),
    ({"name": "non_local", "bn": False}, 131_712),
    ({"name": "ccnet", "recurrence": 5}, 82_241),
    ({"name": "external", "projections": True}, 164_608),
    ({"name": "area", "mlp_ratio": 1.2}, 435_558),
    ({"name": "acmix", "bias": True}, 218_670),
    ({"name": "area", "kernel_size": 5}, 271_104),
    ({"name": "psa_yolo", "mlp_ratio": 2}, 464_640),
    ({"name": "conv_control", "params": 16_482}, 16_220),
    ({"name": "conv_control", "params": 300}, 324),
    ({"name": "conv_control", "params": 5}, 9),
]


def _count(spec, channels):
    return sum(parameter.numel() for parameter in attention.build(spec, channels).parameters())


ONE_HEAD = {
    name: {"heads": 1}
    for name in ("mhsa", "biformer", "axial", "aft", "ufo", "halo", "muse", "acmix")
}
ONE_HEAD["dat"] = {"heads": 1, "groups": 1}
ONE_HEAD["clo"] = {"heads": 1, "local_heads": 1}


def test_every_block_is_counted():
    missing = set(attention.names()) - set(COUNTS)
    assert not missing, (
        f"add to COUNTS the parameters, from the paper, of {', '.join(sorted(missing))}"
    )


@pytest.mark.parametrize("name", COUNTS)
def test_count(name):
    assert (
        _count(name, 256),
        sum(_count(name, channels) for channels in (128, 256, 512)),
    ) == COUNTS[name]


@pytest.mark.parametrize(("spec", "expected"), OPTIONS, ids=lambda item: str(item))
def test_count_with_options(spec, expected):
    assert _count(spec, 256) == expected


@pytest.mark.parametrize(
    "name", sorted(set(COUNTS) - {"psa", "shuffle"})
)  # psa needs four equal groups of channels, shuffle two
def test_few_channels_still_have_a_hidden_layer(name):
    block = attention.build({"name": name, **ONE_HEAD.get(name, {})}, 3)
    assert all(parameter.numel() > 0 for parameter in block.parameters())
