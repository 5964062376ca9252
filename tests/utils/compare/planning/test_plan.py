"""A request becomes settings and folders; mistakes are found before any training."""

import sys
from pathlib import Path

import pytest

import compare
from utils.compare.planning.plan import Plan
from utils.compare.planning.request import make_plan
from utils.core.errors import UserError

SMALL = ["input_size=64", "device=cpu"]


def plan_of(tmp_path: Path, text: str, **options) -> Plan:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan("shapes.yaml", settings_file=str(path), overrides=SMALL, **options)


def test_trials_are_settings_times_seeds(tmp_path: Path):
    plan = make_plan(
        "shapes.yaml", ("none", "2", "{name: se, reduction: 8}"), seeds=(0, 7), overrides=SMALL
    )
    assert plan.out == Path("runs/compare-shapes") and plan.baseline == "none"
    assert [setting.name for setting in plan.settings] == ["none", "cbam", "se(reduction=8)"]
    first_four = [(trial.setting, trial.seed) for trial in plan.trials[:4]]
    assert first_four == [("none", 0), ("cbam", 0), ("se(reduction=8)", 0), ("none", 7)]
    trial = plan.trials[4]
    assert trial.folder == Path("runs/compare-shapes/trials/cbam/seed-7")
    assert trial.config.seed == 7 and trial.config.phi == 2 and trial.config.input_size == (64, 64)
    assert plan.pairs == [("cbam", "none"), ("se(reduction=8)", "none")]


def test_by_default_the_four_settings_of_the_reference_are_compared():
    plan = make_plan("shapes.yaml", overrides=SMALL)
    assert [setting.name for setting in plan.settings] == ["none", "se", "cbam", "eca"]


def test_a_file_of_settings_is_nested_or_dotted(tmp_path: Path):
    text = """
    plain:
    at feat1: {phi: {name: se, reduction: 4}, attention.at: [feat1], train: {lr: 0.02}}
    per/site: {phi: {feat1: eca, feat2: cbam}}
    again: {seed: 100}
    three: {model.heads: 3, phi: {head8: eca}}
    """
    plan = plan_of(tmp_path, text, baseline="plain", seeds=(1,))
    plain, placed, sites, again, three = plan.settings
    assert plain.config.phi == "none" and plan.baseline == "plain"
    assert placed.config.phi == {"name": "se", "reduction": 4} and placed.config.attention.at == [
        "feat1"
    ]
    assert (
        placed.config.train.lr == 0.02 and placed.config.train.epochs == plain.config.train.epochs
    )
    assert placed.folder == "at_feat1" and sites.folder == "per_site"
    assert sites.config.phi == {"feat1": "eca", "feat2": "cbam"}
    assert again.config == plain.config and plan.trials[3].config.seed == 101
    assert plain.config.model.heads == 2 and len(three.config.model.masks) == 3


def test_a_setting_named_twice_is_compared_with_itself():
    plan = make_plan("shapes.yaml", ("se", "se"), overrides=SMALL)
    assert [setting.name for setting in plan.settings] == ["se", "se-2"]
    assert plan.settings[0].config == plan.settings[1].config and plan.baseline == "se"


@pytest.mark.parametrize(
    ("words", "ray", "overrides"),
    [
        ("train.epochs=2", None, ["train.epochs=2"]),
        (
            "--phi se {a:B} train.epochs=2 --seeds 0 threads=1",
            None,
            ["train.epochs=2", "threads=1"],
        ),
        ("--ray", "local", []),
        ("--ray --phi none se train.epochs=2", "local", ["train.epochs=2"]),
        ("--ray data.root=/a/b train.epochs=2", "local", ["data.root=/a/b", "train.epochs=2"]),
        ("--ray auto data.root=/a/b", "auto", ["data.root=/a/b"]),
        ("--ray 10.0.0.1:6379 data.root=x:1", "10.0.0.1:6379", ["data.root=x:1"]),
        ("--ray=ray://head:10001 train.epochs=2", "ray://head:10001", ["train.epochs=2"]),
    ],
)
def test_options_of_the_command_line_end_where_overrides_begin(words: str, ray, overrides):
    args = compare.parse(["--config", "c", *words.split()])
    assert (args.ray, args.overrides) == (ray, overrides)
    assert args.phi in ([], ["none", "se"], ["se", "{a:B}"])
    assert args.seeds in (None, ["0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--config shapse.yaml", "--config shapse.yaml: no such file.*did you mean 'shapes.yaml'"),
        ("--phi none see", "phi: unknown attention block 'see'; did you mean 'se'"),
        ("--phi none", "a comparison needs at least two settings"),
        ("--phi none se --seeds 0 0", "--seeds: expected different integers, got 0 0"),
        ("--phi none se --seeds one", "--seeds: expected integers, got one"),
        ("--phi none se --baseline non", "--baseline non: no such setting; did you mean 'none'"),
        ("--phi none se train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'"),
        ("--phi none se --seeds 0 1 seed=3", "seed=...: a comparison takes its seeds from --seeds"),
        ("--settings nowhere.yaml", "--settings nowhere.yaml: no such file"),
        ("--variants nowhere.yaml", "--settings nowhere.yaml: no such file"),
        ("--phi none se weights=nowhere.pt", "nowhere.pt"),
        ("--phi none se train.patience=3", "train.patience=3: would stop at an epoch chosen on"),
        ("--phi none se train.select=best", "train.select=best: would .* a third split as data.te"),
        ("--phi none se --margin 0", "--margin: expected AP points above 0 and below 100, got 0"),
        ("--phi none se --looks 3 x", "--looks: expected integers, got 3 x"),
        ("--phi none se --looks 8 5", "--looks: expected .* ascending .*, 3 to 1000, got 8 5"),
        ("--phi none se --looks 2 5", "--looks: expected .* ascending .*, 3 to 1000, got 2 5"),
        ("--phi none se --looks 3 5 --seeds 0 1", "--seeds: the last of --looks needs 5 .* got 2"),
        ("--phi none se data.test=val", "data.test: expected a split of its own, .* data.val"),
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
        ("a: {}\nb: {output: x}", "setting 'b': output is set by the comparison and cannot vary"),
        (
            "a: {}\nb: {seed: x}",
            "setting 'b': seed: expected an integer, added to --seeds, got 'x'",
        ),
        ("a b: {}\na/b: {}", "another setting has the same folder 'a_b'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_of_settings_is_one_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError, match=message):
        plan_of(tmp_path, text)


@pytest.mark.parametrize("seeds", [(-1,), (2**32,), ("x",), (0, 0), (), ("9" * 5000,)])
def test_seeds_that_cannot_be_used(seeds: tuple):
    with pytest.raises(UserError, match="--seeds") as caught:
        make_plan("shapes.yaml", ("none", "se"), seeds=seeds, overrides=SMALL)
    assert len(str(caught.value)) < 300


def test_offsets_that_lead_to_such_seeds(tmp_path: Path):
    with pytest.raises(UserError, match="--seeds 0, setting 'again': seed=-1: seed: expected 0"):
        plan_of(tmp_path, "plain: {}\nagain: {seed: -1}", seeds=(0,))


def test_long_names_of_settings_get_short_folders():
    sites = ["stem", "csp1", "csp2", "csp3", "feat1", "feat2", "upsample"]
    specs = []
    for factor in (8, 16):
        block = f"{{name: cbam, reduction: {factor}, kernel_size: 3}}"
        specs.append(f"{{{', '.join(f'{site}: {block}' for site in sites)}}}")
    plan = make_plan("shapes.yaml", specs, overrides=SMALL)
    folders = {setting.folder for setting in plan.settings}
    assert len(folders) == 2 and all(len(folder) < 240 for folder in folders)
    assert all(len(setting.name) > 255 for setting in plan.settings)
