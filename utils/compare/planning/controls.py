"""Fair controls: for a setting with attention, plain convolutions of the same cost at its sites."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from nets import attention
from nets.analysis.flops import count_parameters
from nets.inference.detector import Detector
from nets.yolo.yolov4_tiny import SITES_BY_HEADS, build_model
from utils.compare.planning.plan import Plan, Setting
from utils.core.config import update_config
from utils.core.schema import Config
from utils.core.timing import interleaved_times, medians
from utils.core.validation import SavedSection, read_json, validate
from utils.engine.report import write_json

BLOCK = "conv_control"
CONTROL = "-control"  # after the name of a setting: its control
CONTROLS_FILE = "controls.json"
# Sizes of the controls that are timed: parameters over the square of the site's channels.
SIZES = [2.0**power for power in range(-9, 3)]
CHANNELS = SITES_BY_HEADS[3]  # of every site
MAX_PARAMS = round(SIZES[-1] * max(CHANNELS.values()) ** 2)

Phi = dict[str, dict[str, Any]]


class ControlSpec(SavedSection):
    """A control at a site."""

    name: Literal["conv_control"]
    params: Annotated[int, Field(ge=1, le=MAX_PARAMS)]


class ControlRecord(SavedSection):
    """The control of a setting, and what it is a control of."""

    of: str
    phi: dict[str, ControlSpec]


def with_controls(plan: Plan, kind: Literal["params", "latency"] | None) -> Plan:
    """Return the plan with a setting `<name>-control` after every setting with attention blocks.

    Args:
        plan: the plan; not modified.
        kind: what a control has in common with the block it replaces: its number of parameters,
            or the latency of the network; None: no controls.
    """
    if kind is None:
        return plan
    match = match_parameters if kind == "params" else partial(_cached_latency_match, plan)
    return replace(plan, settings=tuple(_add_controls(plan, match)))


def _add_controls(plan: Plan, match: Callable[[Setting], Phi]) -> list[Setting]:
    names = {setting.name for setting in plan.settings}
    settings = []
    for setting in plan.settings:
        settings.append(setting)
        is_needed = setting.name != plan.baseline and setting.name + CONTROL not in names
        if _sites(setting) and is_needed:
            settings.append(make_control(setting, match))
    return settings


def make_control(setting: Setting, match: Callable[[Setting], Phi]) -> Setting:
    """The fair control of a setting.

    Args:
        setting: has attention blocks.
        match: returns `phi` of the control, for example `match_parameters`.
    """
    return replace(
        setting,
        name=setting.name + CONTROL,
        folder=setting.folder + CONTROL,
        config=update_config(setting.config, {"phi": match(setting)}),
        control_of=setting.name,
    )


def _sites(setting: Setting) -> dict[str, Any]:
    """Site -> attention block."""
    return attention.parse_phi(setting.config.phi, setting.config.attention.at)


def match_parameters(setting: Setting) -> Phi:
    """`phi` with a control for every block, as close to its number of parameters as possible."""
    counts = {}
    for site, spec in _sites(setting).items():
        counts[site] = count_parameters(attention.build(spec, CHANNELS[site]))
    return _controls_phi(counts)


def _controls_phi(counts: Mapping[str, int]) -> Phi:
    return {site: {"name": BLOCK, "params": max(count, 1)} for site, count in counts.items()}


def _cached_latency_match(plan: Plan, setting: Setting) -> Phi:
    """`match_latency`, measured once, so that the same command trains the same control again."""
    path = plan.out / CONTROLS_FILE
    saved: dict[str, ControlRecord] = {}
    if path.is_file():
        saved = read_json(dict[str, ControlRecord], path, "; delete it to measure again")
    config = setting.config
    parts = [config.phi, config.attention.model_dump(), config.input_size]
    if config.model.heads != 2:  # files written before there was a choice stay valid
        parts.append(config.model.heads)
    key = json.dumps(parts)
    record = saved.get(setting.name)
    if record is None or record.of != key:
        print(f"measuring the latency of {setting.name} to find its control")
        record = validate(ControlRecord, {"of": key, "phi": match_latency(setting)}, CONTROLS_FILE)
        saved[setting.name] = record
        write_json(path, {name: item.model_dump() for name, item in saved.items()})
    return record.model_dump()["phi"]


def match_latency(setting: Setting) -> Phi:
    """`phi` with controls that take as long as the blocks.

    All controls have one size relative to their sites, interpolated between timed sizes.
    """
    sites = _sites(setting)
    configs: dict[str, Config] = {"": setting.config}
    for size in SIZES:
        configs[str(size)] = update_config(setting.config, {"phi": _sized_phi(sites, size)})
    image = np.zeros((*setting.config.input_size, 3), np.uint8)
    calls = {}
    for name, config in configs.items():
        calls[name] = partial(Detector(build_model(config, 1), config, ("object",)), image)
    times = medians(interleaved_times(calls, seconds=1.0))
    rising = np.maximum.accumulate([times[str(size)] for size in SIZES])
    return _sized_phi(sites, float(2 ** np.interp(times[""], rising, np.log2(SIZES))))


def _sized_phi(sites: Mapping[str, Any], size: float) -> Phi:
    return _controls_phi({site: round(size * CHANNELS[site] ** 2) for site in sites})
