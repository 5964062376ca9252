"""A control costs what the attention that it stands for costs."""

from pathlib import Path

import numpy as np
import pytest

from nets import attention
from nets.analysis.flops import count_parameters
from nets.yolo.yolov4_tiny import SITES_BY_HEADS, build_model
from utils.compare.planning import controls
from utils.compare.planning.controls import match_parameters, with_controls
from utils.compare.planning.plan import Setting
from utils.compare.planning.request import make_plan

SMALL = ["input_size=64", "device=cpu"]


def parameters(setting: Setting) -> int:
    return count_parameters(build_model(setting.config, 6))


@pytest.mark.parametrize(
    ("phi", "heads"),
    [
        *((phi, 2) for phi in ("se", "cbam", "ca", "{name: gc}", "mhsa", "split")),
        ("{feat1: se, head16: cbam}", 2),
        ("{feat0: se, head8: cbam}", 3),
    ],
)
def test_a_control_has_the_parameters_of_what_it_controls(phi: str, heads: int):
    overrides = [*SMALL, f"model.heads={heads}"]
    plan = with_controls(make_plan("shapes.yaml", ("none", phi), overrides=overrides), "params")
    none, setting, control = plan.settings
    own = parameters(setting) - parameters(none)
    assert parameters(control) - parameters(none) == pytest.approx(own, rel=0.04)
    sites = {
        site: count_parameters(attention.build(spec, SITES_BY_HEADS[3][site]))
        for site, spec in control.config.phi.items()
    }
    for site, count in sites.items():
        wanted = control.config.phi[site]["params"]
        assert count == pytest.approx(wanted, rel=0.1)
    assert plan.pairs[-1] == (setting.name, control.name) and (control.name, "none") in plan.pairs


def test_only_settings_with_attention_have_controls(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text("a: {phi: eca}\nb: {train.lr: 0.1}\nc: {phi: eca}", encoding="utf-8")
    plan = with_controls(
        make_plan("shapes.yaml", settings_file=str(path), overrides=SMALL, baseline="c"), "params"
    )
    assert [setting.name for setting in plan.settings] == ["a", "a-control", "b", "c"]
    assert {block["params"] for block in match_parameters(plan.settings[0]).values()} == {5}


def test_a_latency_control_is_interpolated_between_timings_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As if a network took 10 ms, and a control 8 ms per square of the channels."""

    def timed(runs, seconds):
        measured.append(len(runs))
        return {name: np.full(10, 10 + 8 * float(name or 0.375)) for name in runs}

    measured: list[int] = []
    monkeypatch.setattr(controls, "interleaved_times", timed)
    plan = make_plan("shapes.yaml", ("none", "se"), out=str(tmp_path), overrides=SMALL)
    first, again = (with_controls(plan, "latency").settings[2].config.phi for _ in range(2))
    assert first == again and len(measured) == 1
    for site, block in first.items():
        assert 0.25 < block["params"] / SITES_BY_HEADS[3][site] ** 2 < 0.5
