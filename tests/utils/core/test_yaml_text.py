"""YAML with limits: what words mean, what is refused, and where."""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from utils.core.errors import UserError
from utils.core.yaml_text import MAX_BYTES, MAX_DEPTH, dump_yaml, load_yaml, parse_yaml


def laughs(level: int) -> str:
    """Aliases of aliases: 10 ** level values in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for index in range(1, level):
        aliases = ", ".join([f"*a{index - 1}"] * 10)
        lines.append(f"a{index}: &a{index} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("1E+5", 1e5), (".5", 0.5), ("5.", 5.0), ("-3", -3), ("+4.5", 4.5)],
        *[("0o17", 15), ("0x1F", 31), ("017", 17), ("-.inf", -math.inf)],
        *[("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("# c", None)],
        *[(word, word) for word in ("no", "yes", "On", "off", "y", "1:30", "1_000", "2024-01-31")],
        *[("'12'", "12"), ('"null"', "null"), ("-", [None]), ("{1: a, b: c}", {1: "a", "b": "c"})],
        ("\ufeffa: 1", {"a": 1}),
        (
            "base: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}",
            {"base": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}},
        ),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    read = parse_yaml(text, "here")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: 1, a: 2}", "here: not valid YAML: the key a is set twice"),
        ("{1: a, 01: b}", "here: not valid YAML: the key 1 is set twice"),
        ("a: 1\nb: {c: 1,\n c: 2}", "here:3: not valid YAML: the key c is set twice"),
        ("? [1]\n: 2", "here:1: not valid YAML: expected a name or an integer as key"),
        ("{null: 1}", "here: not valid YAML: expected a name or an integer as key"),
        ("a: !!python/object:os.system x", "the tag tag:yaml.org,2002:python/object:os.system"),
        ("!!str 12", "the tag tag:yaml.org,2002:str is not supported"),
        ("&a [*a]", "the alias *a contains itself"),
        ("x: 1\na: &a {b: {c: *a}}", "here:2: not valid YAML: the alias *a contains itself"),
        (laughs(9), "here:5: not valid YAML: more than 100,000 values"),
        ("[" * 10000, f"more than {MAX_DEPTH} levels"),
        ("- " * 10000, f"more than {MAX_DEPTH} levels"),
        ("{a: " * 10000, f"more than {MAX_DEPTH} levels"),
        ("a: &a [[[1]]]\n" + "b: " + "[" * (MAX_DEPTH - 4) + "*a", "here:2:"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\tx: 1", "expected spaces, found a tab"),
        ("a:\n\t- 1", "here:2: not valid YAML: expected spaces, found a tab"),
        ("--- 1\n--- 2", "here:2: not valid YAML: expected a single document"),
        ("a\nb\x00", "here:2: not valid YAML: the character U+0000 is not allowed"),
        ("a\x1b", "the character U+001B is not allowed"),
        ("\ud800", "the character U+D800 is not allowed"),
        ('"\\UFFFFFFFF"', "an escape sequence stands for no character"),
        ('"\\U00110000"', "an escape sequence stands for no character"),
        ('"\\ud83d"', "an escape sequence stands for no character"),
        ("9" * 5000, "a number of more than 100 digits"),
        ("0x" + "f" * 5000, "a number of more than 100 digits"),
        ("{<<: 5}", "expected a mapping"),
        ("*x", "undefined alias 'x'"),
        ("[1, 2", "expected ',' or ']'"),
        ("a" * (MAX_BYTES + 1), "1,048,577 characters of YAML, expected at most 1,048,576"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "here")
    told = str(caught.value)
    assert told.startswith("here:") and message in told and "\n" not in told and len(told) < 200


def test_any_text_is_read_or_refused() -> None:
    """10,000 random documents of the characters that mean something in YAML."""
    rng = random.Random(0)
    pieces = [
        *"{}[],:&*!|>'\"%@`#-?~ \n\tab01.eE+_<\\xuU",
        "<<: ",
        "a: ",
        "- ",
        "*a",
        "&a ",
        "\n  ",
    ]
    for _ in range(10_000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 12)))
        with suppress(UserError):
            parse_yaml(text, "here")


@pytest.mark.parametrize(
    "value", ["no", "1e-3", "0o7", "1:30", "012", "~", 1e-7, 1e22, "<<", "=", 3]
)
def test_what_is_written_reads_back(value: Any) -> None:
    text = dump_yaml({"a": value})
    assert parse_yaml(text, "here") == yaml.safe_load(text) == {"a": value}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def file(data: bytes) -> Path:
        path = tmp_path / "a.yaml"
        path.write_bytes(data)
        return path

    return file


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: \xff", "a.yaml:2: expected UTF-8 text"),
        (b"a: 1\nb: [", "a.yaml:2: not valid YAML"),
        (b" " * (MAX_BYTES + 1), "expected at most 1,048,576"),
    ],
)
def test_files(data: bytes, message: str, write: Callable[[bytes], Path]) -> None:
    with pytest.raises(UserError, match=message):
        load_yaml(write(data))
    assert load_yaml(write(b"\xef\xbb\xbfa: \xc3\xa9")) == {"a": "é"}
