"""Numbers, flags, identifiers and sizes: what is accepted, and how the rest is refused."""

import pytest

from utils.data.readers.values import BadValue, parse_flag, parse_id, parse_number, parse_size

NESTED: list = []
for _ in range(900):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("value", "number"),
    [("12", 12), (" -1.5 ", -1.5), ("+4.", 4), (".5", 0.5), ("1e3", 1000), (7, 7), (0.25, 0.25)],
)
def test_numbers(value, number):
    assert parse_number(value, "x") == number


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *[(word, f"'{word}'") for word in ("inf", "-inf", "nan", "1e400", "0x10", "1_0", "1,5")],
        *[(word, f"'{word}'") for word in ("１２", "٣", "--3", "1e", ".", "4 5", "true", "1e10")],
        *[(value, "nothing") for value in (None, "", "  ")],
        *[(value, str(value)) for value in (True, False, float("nan"), float("-inf"), 2e9)],
        ("9" * 5000, "999"),
        (10**400, "1000"),
        (NESTED, "a list"),
        ({}, "an object"),
    ],
)
def test_what_is_no_number_is_refused_in_a_short_line(value, found):
    with pytest.raises(BadValue) as caught:
        parse_number(value, "a.xml: object 1: xmin")
    message = str(caught.value)
    assert message.startswith("a.xml: object 1: xmin: expected a number up to 1e9, got ")
    assert found in message and len(message) < 120 and "\n" not in message


@pytest.mark.parametrize(
    ("value", "flag"),
    [(0, False), ("0", False), (None, False), ("", False), (False, False), ("no", False)]
    + [(1, True), (" 1 ", True), (True, True), ("TRUE", True), ("yes", True), (1.0, True)],
)
def test_flags(value, flag):
    assert parse_flag(value, "x") is flag


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "maybe", [], [1], {}, float("nan")])
def test_what_is_no_flag_is_refused(value):
    with pytest.raises(BadValue, match="x: expected 0 or 1, got "):
        parse_flag(value, "x")


def test_identifiers_of_unlike_types_are_the_same():
    assert parse_id(7, "id") == parse_id("7", "id") == parse_id(7.0, "id") == parse_id(" 7 ", "id")
    assert parse_id("007", "id") != parse_id(7, "id")


@pytest.mark.parametrize("value", [None, True, "", " ", 7.5, float("nan"), float("inf"), [7], {}])
def test_what_is_no_identifier_is_refused(value):
    with pytest.raises(BadValue, match="id: expected an integer or text, got "):
        parse_id(value, "id")


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((60, 40), (60, 40)),
        (("60", "40.0"), (60, 40)),
        ((None, 40), None),
        ((60, 0), None),
        (("", ""), None),
        ((-1, 40), (-1, 40)),
        (("wide", 40), (-1, 40)),
        ((1e300, [40]), (-1, -1)),
    ],
)
def test_stated_sizes(sides, size):
    assert parse_size(*sides) == size
