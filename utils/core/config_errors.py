"""What is wrong with a configuration, in one line: key, what was expected, what was given."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from utils.core.config_fields import KeyPath, describe_limits, explain_fields, find_field
from utils.core.errors import nearest, shorten
from utils.core.schema import RENAMED, Config

# Pydantic's types of error, by their start -> what was expected
COMPARISONS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
EXPECTED = {
    "int_": "an integer",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
    "string_unicode": "valid Unicode",
    "string_": "text",
    "list_": "a list",
    "tuple_": "a list",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "missing": "one more item",
    "dict_": "a mapping",
    "model_": "a section with keys",
}


def explain_error(error: ValidationError) -> tuple[KeyPath, str]:
    """The path of the first problem; and its key, what was expected and what was given."""
    problems = error.errors()
    path = _key_path(problems[0]["loc"])
    # the alternatives of a field, such as a word or a list, fail one by one: the deepest counts
    rivals = [item for item in problems if _key_path(item["loc"])[: len(path)] == path]
    path = max((_key_path(item["loc"]) for item in rivals), key=len)
    problem = next(item for item in rivals if _key_path(item["loc"]) == path)
    key = str(path[0])
    for part in path[1:]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    if key in RENAMED:
        return path, f"'{key}' is now called '{RENAMED[key]}'"
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return path, f"unknown key '{shorten(key)}'{_suggest(path)}"
    if problem["type"] == "value_error":
        return path, f"{key}: {problem['msg'].removeprefix('Value error, ')}"
    expected = dict.fromkeys(
        _expected(item, path) for item in rivals if _key_path(item["loc"]) == path
    )
    return path, f"{key}: expected {' or '.join(expected)}, got {show_value(problem['input'])}"


def _key_path(location: tuple[int | str, ...]) -> KeyPath:
    """The keys and list indices of an error's location, without the names of pydantic's types."""
    model: Any = Config
    for depth, name in enumerate(location):
        field = model.model_fields.get(name)
        if field is None:
            return location[: depth + 1]
        model = field.annotation
        if not isinstance(model, type(BaseModel)):
            inside = location[depth + 1 :]
            indices = [] if "[key]" in inside else [i for i in inside if isinstance(i, int)]
            return (*location[: depth + 1], *indices)
    return location


def _expected(problem: ErrorDetails, path: KeyPath) -> str:
    """What was expected, in words for pydantic's type of error."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in COMPARISONS:
        return describe_limits(find_field(path))
    if kind == "literal_error":
        return str(context["expected"])
    if problem["loc"][-1] == "[key]":
        return "names as keys"
    if kind == "string_type" and isinstance(problem["input"], (int, float)):
        return "text (in quotes if it looks like a number)"
    for start, expected in EXPECTED.items():
        if kind.startswith(start):
            return expected.format(**context)
    return f"another value ({kind})"


def show_value(value: Any) -> str:
    """A value as the user wrote it, shortened."""
    words = {None: "nothing", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return shorten(value, quoted=True)


def _suggest(path: KeyPath) -> str:
    """A hint at the nearest key: the same name in another section, else in its own."""
    name = str(path[-1])
    keys = {key: key.rpartition(".")[2] for key, _, _ in explain_fields()}
    if name in keys:
        section, _, last = name.partition(".")
        return f"; expected it nested: {section}: {{{last}: ...}}"
    same = [f"'{key}'" for key, last in keys.items() if last == name]
    if same:
        return f"; did you mean {' or '.join(same)}?"
    own = _section_fields(path[:-1])
    close = difflib.get_close_matches(name, [*own, *keys.values()], n=1, cutoff=0.6)
    if close and close[0] not in own:
        return _suggest((close[0],))
    return nearest(name, own, "".join(f"{part}." for part in path[:-1]))


def _section_fields(path: KeyPath) -> list[str]:
    model: Any = find_field(path).annotation if path else Config
    return list(model.model_fields)
