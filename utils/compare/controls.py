"""Fair controls: for a setting with attention, plain convolution of the same price at the same sites."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from nets import attention
from nets.analysis.flops import count_parameters
from nets.inference.detector import Detector
from nets.yolo.yolov4_tiny import SITES, build_model
from utils.compare.latency import time_in_turns
from utils.compare.plan import Plan, Variant
from utils.core.config import make_config
from utils.core.schema import Config
from utils.engine.report import write_json

BLOCK = "conv_control"
FILE = "controls.json"
SHARES = [
    2.0**power for power in range(-9, 3)
]  # parameters of a tried control, over the square of its channels
Phi = dict[str, dict[str, Any]]


def with_controls(plan: Plan, kind: Literal["params", "latency"]) -> Plan:
    """The plan with a setting `<name>-control` behind every one that has attention blocks.

    Each block is replaced by a `conv_control` of as many parameters, or by one that takes the network as long.
    """
    match = matching_parameters if kind == "params" else partial(_kept_latency, plan)
    return replace(plan, variants=tuple(_expand(plan, match)))


def _expand(plan: Plan, match: Callable[[Variant], Phi]) -> Iterator[Variant]:
    taken = {variant.name for variant in plan.variants}
    for variant in plan.variants:
        yield variant
        name = f"{variant.name}-control"
        sites = attention.parse_phi(variant.config.phi, variant.config.attention.at)
        if sites and variant.name != plan.baseline and name not in taken:
            config = _with_phi(variant.config, match(variant))
            yield Variant(name, f"{variant.folder}-control", config, variant.shift, variant.name)


def _with_phi(config: Config, phi: Phi) -> Config:
    return make_config({**config.model_dump(mode="json"), "phi": phi})


def matching_parameters(variant: Variant) -> Phi:
    """`phi` with a control of the same number of parameters for every block, as near as convolution gets."""
    sites = attention.parse_phi(variant.config.phi, variant.config.attention.at)
    counts = {
        site: count_parameters(attention.build(spec, SITES[site])) for site, spec in sites.items()
    }
    return _phi(counts)


def _phi(counts: Mapping[str, int]) -> Phi:
    return {site: {"name": BLOCK, "params": max(count, 1)} for site, count in counts.items()}


def _kept_latency(plan: Plan, variant: Variant) -> Phi:
    """`matching_latency`, measured once: `controls.json` keeps it, so that a second start trains the same control."""
    path = plan.out / FILE
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    mark = json.dumps(
        [variant.config.phi, variant.config.attention.model_dump(), variant.config.input_size]
    )
    if kept.get(variant.name, {}).get("of") != mark:
        print(f"measuring the latency of {variant.name}, to find its control")
        write_json(
            path, kept := {**kept, variant.name: {"of": mark, "phi": matching_latency(variant)}}
        )
    return kept[variant.name]["phi"]


def matching_latency(variant: Variant) -> Phi:
    """`phi` with controls that take as long: all of one size relative to their sites, interpolated between timings."""
    config = variant.config
    sites = attention.parse_phi(config.phi, config.attention.at)
    tried = {str(share): _with_phi(config, _share(sites, share)) for share in SHARES}
    picture = np.zeros((*config.input_size, 3), np.uint8)
    networks = {
        name: Detector(build_model(one, 1), one, ("object",))
        for name, one in {**tried, "": config}.items()
    }
    ms = time_in_turns(
        {name: partial(detector, picture) for name, detector in networks.items()}, seconds=1.0
    )
    rising = np.maximum.accumulate([ms[str(share)] for share in SHARES])
    return _share(sites, float(2 ** np.interp(ms[""], rising, np.log2(SHARES))))


def _share(sites: Mapping[str, Any], share: float) -> Phi:
    return _phi({site: round(share * SITES[site] ** 2) for site in sites})
