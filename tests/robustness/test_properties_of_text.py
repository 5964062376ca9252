"""What holds for all text: YAML, configurations, encodings and numbers."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nets.yolo.yolov4_tiny import SITES
from utils.core.config import dump_config, load_config, update_config
from utils.core.overrides import flatten
from utils.core.schema import Config
from utils.core.text import CONTROL, decode_text
from utils.core.yaml_text import dump_yaml, parse_yaml
from utils.data.readers.values import LARGEST, parse_number

# YAML

WORDS = st.sampled_from(
    ["no", "1e3", "1_000", "1:30", "0o7", "~", "null", "<<", "=", "-", "? a", "&a", "2024-01-31"]
)
TEXTS = st.text(max_size=20) | WORDS
NUMBERS = st.integers(-(10**98), 10**98) | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """A value with its types, since `1 == 1.0 == True`."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("inline", [None, False, True])
@given(VALUES)
def test_yaml_returns_what_was_written(inline: bool | None, value: Any) -> None:
    text = dump_yaml(value, inline)
    assert typed(parse_yaml(text, "here")) == typed(value)
    assert typed(yaml.safe_load(text)) == typed(value)


# configurations

SIDES = st.integers(1, 128).map(lambda count: 32 * count)
ANCHOR = st.tuples(*[st.floats(0.1, 16384)] * 2)
LINES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\"),
    min_size=1,
    max_size=20,
)
SPECIAL: dict[str, st.SearchStrategy] = {
    "name": LINES.filter(lambda name: name not in (".", "..")),
    "phi": st.sampled_from(["none", "cbam", 3, None, {"name": "se", "reduction": 8}]),
    "attention.at": st.lists(st.sampled_from(sorted(SITES)), unique=True),
    "input_size": st.tuples(SIDES, SIDES) | SIDES,
    "device": st.sampled_from(["auto", "cpu", "cuda:1", "mps"]),
    "augment.scale": st.tuples(st.floats(0.05, 1), st.floats(1, 20)),
    "loss.box": st.floats(0.5, 1000),
    "data.classes": st.none() | LINES | st.lists(LINES),
    "data.test": st.none() | LINES.map("test/{}".format),  # not that of another key
}


def strategy_of(schema: Mapping[str, Any]) -> st.SearchStrategy:
    """The values that a field's JSON schema allows."""
    if "anyOf" in schema:
        return st.one_of([strategy_of(option) for option in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kind = schema["type"]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if kind == "integer":
            return st.integers(low, high - ("exclusiveMaximum" in schema))
        open_ends = {"exclude_min": "minimum" not in schema, "exclude_max": "maximum" not in schema}
        return st.floats(low, high, **open_ends)
    if kind == "array":
        return st.lists(strategy_of(schema["items"]), min_size=schema.get("minItems", 0))
    return {"boolean": st.booleans(), "null": st.none(), "string": LINES}[kind]


def of_heads(heads: int) -> dict[str, st.SearchStrategy]:
    """What the number of heads decides."""
    mask = st.permutations(range(3 * heads)).map(lambda row: row[:3])
    return {
        "model.heads": st.just(heads),
        "model.anchors": st.just("auto") | st.lists(ANCHOR, min_size=3 * heads, max_size=3 * heads),
        "model.anchor_masks": st.none() | st.tuples(*[mask] * heads),
    }


def fields(heads: int = 2) -> dict[str, st.SearchStrategy]:
    """A strategy for each dotted key."""
    special = SPECIAL | of_heads(heads)
    schema = Config.model_json_schema()
    sections = {name.removesuffix("Config").lower(): item for name, item in schema["$defs"].items()}
    keys = {}
    for name, field in schema["properties"].items():
        inner = sections[name]["properties"] if name in sections else {"": field}
        for last, item in inner.items():
            key = f"{name}.{last}".strip(".")
            keys[key] = special[key] if key in special else strategy_of(item)
    return keys


def test_each_field_has_a_strategy() -> None:
    keys = {key for key, _ in flatten(Config().model_dump())}
    assert set(fields()) == keys and keys >= SPECIAL.keys() | of_heads(2).keys()


@given(st.fixed_dictionaries({}, optional=fields()) | st.fixed_dictionaries(fields(3)))
def test_a_dumped_configuration_loads_unchanged(changes: dict[str, Any]) -> None:
    config = update_config(Config(), changes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "other.yaml"
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path) == config


# encodings

PLAIN = st.text().filter(lambda text: not CONTROL.search(text) and not text.startswith("\ufeff"))
SCRIPTS = {
    "gbk": "安全帽猫狗红色",
    "shift_jis": "ねこイヌ猫犬赤",
    "big5": "貓狗紅色安全",
    "euc_kr": "고양이개빨강",
    "cp1252": "éèçüñß€",
    "iso8859-1": "éèçüñß",
    "cp1251": "кошка",
    "koi8-r": "собака",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@given(PLAIN)
def test_unicode_is_read_as_it_was_written(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", SCRIPTS)
@given(st.data())
def test_a_declared_encoding_is_read_as_it_was_written(encoding: str, data: st.DataObject) -> None:
    letters = st.sampled_from(SCRIPTS[encoding] + "ab1 \n")
    text = data.draw(st.text(letters))
    assert decode_text(text.encode(encoding), encoding).text == text


@given(st.integers(-(10**9), 10**9) | st.floats(-LARGEST, LARGEST))
def test_a_number_is_the_same_as_text(number: float) -> None:
    assert parse_number(number, "") == parse_number(repr(number), "") == number


@given(st.floats(LARGEST, exclude_min=True) | st.just(math.nan))
def test_no_other_number_is_accepted(number: float) -> None:
    for value in (number, repr(number), -number):
        with pytest.raises(ValueError, match="expected a number up to 1e9"):
            parse_number(value, "")
