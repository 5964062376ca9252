"""What is asked for becomes settings and folders; mistakes are told before any training."""

import sys
from pathlib import Path

import pytest

import compare
from nets import attention
from nets.analysis.flops import count_parameters
from nets.yolo.yolov4_tiny import SITES, build_model
from utils.compare import controls
from utils.compare.controls import matching_parameters, with_controls
from utils.compare.plan import Plan, make_plan, split_overrides
from utils.core.errors import UserError

SMALL = ["input_size=64", "device=cpu"]


def plan_of(tmp_path: Path, text: str, **more) -> Plan:
    path = tmp_path / "variants.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan("shapes.yaml", variants=str(path), overrides=SMALL, **more)


def test_cells_are_settings_times_seeds(tmp_path: Path):
    plan = make_plan(
        "shapes.yaml", ("none", "2", "{name: se, reduction: 8}"), seeds=(0, 7), overrides=SMALL
    )
    assert plan.out == Path("runs/compare-shapes") and plan.baseline == "none"
    assert [variant.name for variant in plan.variants] == ["none", "cbam", "se(reduction=8)"]
    assert [(cell.variant, cell.seed) for cell in plan.cells][:4] == [
        ("none", 0), ("cbam", 0), ("se(reduction=8)", 0), ("none", 7),
    ]  # fmt: skip
    cell = plan.cells[4]
    assert cell.folder == Path("runs/compare-shapes/cells/cbam/seed-7")
    assert cell.config.seed == 7 and cell.config.phi == 2 and cell.config.input_size == (64, 64)
    assert plan.pairs == [("cbam", "none"), ("se(reduction=8)", "none")]


def test_without_a_choice_the_four_settings_of_the_reference_are_compared():
    assert [one.name for one in make_plan("shapes.yaml").variants] == ["none", "se", "cbam", "eca"]


def test_a_file_of_variants_is_nested_or_dotted(tmp_path: Path):
    text = """
    plain:
    at feat1: {phi: {name: se, reduction: 4}, attention.at: [feat1], train: {lr: 0.02}}
    per/site: {phi: {feat1: eca, feat2: cbam}}
    again: {seed: 100}
    """
    plan = plan_of(tmp_path, text, baseline="plain", seeds=(1,))
    plain, placed, sites, again = plan.variants
    assert plain.config.phi == "none" and plan.baseline == "plain"
    assert placed.config.phi == {"name": "se", "reduction": 4} and placed.config.attention.at == [
        "feat1"
    ]
    assert (
        placed.config.train.lr == 0.02 and placed.config.train.epochs == plain.config.train.epochs
    )
    assert placed.folder == "at_feat1" and sites.folder == "per_site"
    assert sites.config.phi == {"feat1": "eca", "feat2": "cbam"}
    assert again.config == plain.config and plan.cells[3].config.seed == 101


def test_a_setting_named_twice_is_compared_with_itself():
    plan = make_plan("shapes.yaml", ("se", "se"), overrides=SMALL)
    assert [variant.name for variant in plan.variants] == ["se", "se-2"]
    assert plan.variants[0].config == plan.variants[1].config and plan.baseline == "se"


def test_lists_on_the_command_line_end_where_overrides_begin():
    assert split_overrides(["se", "{name: se}", "train.epochs=5", "a:B"]) == (
        ["se", "{name: se}", "a:B"],
        ["train.epochs=5"],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--config shapse.yaml", "--config shapse.yaml: no such file.*did you mean 'shapes.yaml'"),
        ("--phi none see", "phi: unknown attention block 'see'; did you mean 'se'"),
        ("--phi none", "a comparison needs two settings at least"),
        ("--phi none se --seeds 0 0", "--seeds: expected different whole numbers, got 0 0"),
        ("--phi none se --seeds one", "--seeds: expected whole numbers, got one"),
        ("--phi none se --baseline non", "--baseline non: no such setting; did you mean 'none'"),
        ("--phi none se train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'"),
        ("--phi none se --seeds 0 1 seed=3", "seed=...: a comparison takes its seeds from --seeds"),
        ("--variants nowhere.yaml", "--variants nowhere.yaml: no such file"),
        ("--phi none se weights=nowhere.pt", "nowhere.pt"),
        (
            "--phi none se --out /dev/null/x",
            "--out /dev/null/x: cannot make this folder: Not a directory",
        ),
    ],
)
def test_a_command_lines_mistake_is_one_line(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    given = words.split() if "--config" in words else ["--config", "shapes.yaml", *words.split()]
    monkeypatch.setattr(sys, "argv", ["compare.py", *given])
    with pytest.raises(UserError, match=message) as error:
        compare.main()
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing", "expected settings"),
        ("- none", "expected a mapping of keys to values, got list"),
        ("a: 3\nb: {}", "a: expected overrides as a mapping, got 3"),
        ("a: {}\nb: {phy: se}", "setting 'b': .*unknown key 'phy'; did you mean 'phi'"),
        ("a: {}\nb: {phi: see}", "unknown attention block 'see'"),
        (
            "a: {}\nb: {data.val: test}",
            "setting 'b': data.val differs; settings are compared on the same test images",
        ),
        ("a: {}\nb: {output: x}", "setting 'b': output cannot be varied"),
        (
            "a: {}\nb: {seed: x}",
            "setting 'b': seed: expected a whole number, added to --seeds, got 'x'",
        ),
        ("a b: {}\na/b: {}", "its folder 'a_b' is taken by another setting"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_of_variants_is_one_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError, match=message):
        plan_of(tmp_path, text)


def parameters(variant) -> int:
    return count_parameters(build_model(variant.config, 6))


@pytest.mark.parametrize(
    "phi", ["se", "cbam", "ca", "{name: gc}", "{feat1: se, head16: cbam}", "mhsa", "split"]
)
def test_a_control_has_the_parameters_of_what_it_controls(phi: str):
    plan = with_controls(make_plan("shapes.yaml", ("none", phi), overrides=SMALL), "params")
    none, setting, control = plan.variants
    own = parameters(setting) - parameters(none)
    assert parameters(control) - parameters(none) == pytest.approx(own, rel=0.04)
    sites = {
        site: count_parameters(attention.build(spec, SITES[site]))
        for site, spec in control.config.phi.items()
    }
    for site, count in sites.items():
        wanted = control.config.phi[site]["params"]
        assert count == pytest.approx(wanted, rel=0.1)
    assert plan.pairs[-1] == (setting.name, control.name) and (control.name, "none") in plan.pairs


def test_only_settings_with_attention_have_controls(tmp_path: Path):
    plan = with_controls(
        plan_of(tmp_path, "a: {phi: eca}\nb: {train.lr: 0.1}\nc: {phi: eca}", baseline="c"),
        "params",
    )
    assert [variant.name for variant in plan.variants] == ["a", "a-control", "b", "c"]
    assert {block["params"] for block in matching_parameters(plan.variants[0]).values()} == {5}


def test_a_latency_control_is_found_between_timings_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As if a network's time were 10 ms, and 8 ms for a share of 1 of the square of the channels."""

    def timed(runs, seconds):
        measured.append(len(runs))
        return {name: 10 + 8 * float(name or 0.375) for name in runs}

    measured: list[int] = []
    monkeypatch.setattr(controls, "time_in_turns", timed)
    plan = make_plan("shapes.yaml", ("none", "se"), out=str(tmp_path), overrides=SMALL)
    first, again = (with_controls(plan, "latency").variants[2].config.phi for _ in range(2))
    assert first == again and len(measured) == 1
    for site, block in first.items():
        assert 0.25 < block["params"] / SITES[site] ** 2 < 0.5
