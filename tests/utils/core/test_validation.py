"""Values from files: what does not fit is named in one short line, whatever it is."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from utils.core.errors import UserError
from utils.core.validation import SavedSection, check_plain, read_json, validate


class Item(SavedSection):
    count: int
    share: float = 0.0
    names: list[str] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "file: count is missing"),
        ({"count": "3"}, "file: count: expected a valid integer, got '3'"),
        ({"count": True}, "file: count: expected a valid integer, got True"),
        ({"count": 1, "share": float("nan")}, "file: share: expected a finite number, got nan"),
        ({"count": 1, "names": ["a", 3]}, "file: names.1: expected a valid string, got 3"),
        ({"count": 1, "more": 2}, "file: unknown key 'more'"),
        ({"count": "a\nb"}, r"file: count: expected a valid integer, got 'a\nb'"),
        ({"count": [1]}, "file: count: expected a valid integer, got a value of type list"),
        (3, "file: expected a valid dictionary or instance of Item, got 3"),
    ],
)
def test_the_first_problem_is_named(value: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(Item, value, "file")
    assert str(caught.value) == words


def test_integers_are_numbers_and_nothing_else_is_converted() -> None:
    assert validate(Item, {"count": 3, "share": 1}, "file").share == 1.0


def test_keys_of_any_kind_are_shown_briefly() -> None:
    keys: list[Any] = ["x" * 10_000, 10**5000, None, ("a", "b")]
    for key in keys:
        with pytest.raises(UserError) as caught:
            validate(dict[str, int], {key: "a"}, "file")
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"count": 1', '{"count": 1e999}', "9" * 9999])
def test_json_that_is_none_ends_in_one_line_with_advice(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json: .*; delete it$") as caught:
        read_json(Item, path, "; delete it")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_values_that_never_end_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    many: Any = [1]
    for _ in range(60):
        many = [many, many]
    for value in (loop, many, [0] * 20_000, "x" * 20_000, 10**5000, {"a": {1, 2}}, b"a"):
        with pytest.raises(UserError, match=r"^file: expected "):
            check_plain(value, "file")
    check_plain({"a": [1, 2.5, None, True, "b"], 3: ({},)}, "file")
