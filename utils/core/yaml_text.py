"""YAML from any source, read with limits and errors of one line.

Plain words mean what YAML 1.2 says: `1e-3` is a number, and `no`, `1:30`, `1_000` and `2024-01-31`
are text; PyYAML reads them by YAML 1.1 as text, false, 90, 1000 and a date. Anchors, aliases and
merge keys (`<<`) are accepted within the limits below.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from utils.core.errors import UserError, shorten
from utils.core.inputs import read_file

MAX_BYTES = 2**20
MAX_DEPTH = 40  # of nested lists and mappings, aliases replaced by what they stand for
MAX_VALUES = 100_000  # likewise; so aliases of aliases cannot fill the memory
MAX_DIGITS = 100
LINE_ENDS = re.compile("[\x85\u2028\u2029]")
PREFIX = "tag:yaml.org,2002:"
KEY_TAGS = {f"{PREFIX}{name}" for name in ("str", "int", "merge")}
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
# Implicit types by YAML 1.2, section 10.3.2: tag, pattern, first characters
IMPLICIT = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
)


def parse_yaml(text: str, origin: str) -> Any:
    """Read one YAML document.

    Args:
        text: the document; nothing in it is executed.
        origin: file, key or option that it comes from, for error messages.

    Returns:
        None, bool, int, float, str, list, or dict with keys of str or int. An empty text gives
        None.

    Raises:
        UserError: malformed, larger than the limits of this module, with a tag, a duplicate key or
            several documents; names the origin and, if the text has several lines, the line.
    """
    if len(text) > MAX_BYTES:
        raise UserError(
            f"{origin}: {len(text):,} characters of YAML, expected at most {MAX_BYTES:,}"
        )
    try:
        return _Loader(text).get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = _explain(error)
    except (ValueError, OverflowError):  # PyYAML's scanner, for an escape beyond Unicode
        line, problem = 1, "an escape sequence stands for no character"
    where = f"{origin}:{line}" if "\n" in text.strip() else origin
    raise UserError(f"{where}: not valid YAML: {problem}")


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if problem.startswith("but "):
        problem = f"{error.context} {problem}"
    if "'\\t'" in problem:
        return "expected spaces, found a tab"
    return shorten(problem)


def load_yaml(path: str | Path, title: str = "") -> Any:
    """Read the YAML document in a file, see `parse_yaml`.

    Args:
        path: the file.
        title: put before the path in error messages, such as an option.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is not such a document.
    """
    named = f"{title} {path}".strip()
    data = read_file(path, title, MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{named}:{line}: expected UTF-8 text") from None
    return parse_yaml(text, named)


def dump_yaml(value: Any, inline: bool | None = None, width: int = 80) -> str:
    """Write plain values so that `parse_yaml`, and a reader of YAML 1.1, give them back.

    Args:
        value: plain values, as `parse_yaml` returns them.
        inline: write `{a: [1]}` instead of one key or item per line; None: only the innermost.
        width: where lines are wrapped, characters.
    """
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=inline,
        width=width,
    )


class _Dumper(yaml.SafeDumper):
    """Quotes text that would be read as another type, by YAML 1.1 or by the rules below."""


class _Loader(yaml.SafeLoader):
    """Composes and constructs plain values, within limits."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  PyYAML's own attribute, filled below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.values = 0
        self.measures: dict[Node, tuple[int, int]] = {}  # values and levels of complete nodes

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one value, and count it with what is inside."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            self._refuse(event, f"the tag {event.tag} is not supported")
        if isinstance(event, yaml.AliasEvent):
            return self._compose_alias(parent, index, event)
        before = self.values
        self._count(event, 1, 1)
        self.depth += 1
        node = self._compose(parent, index)
        self.depth -= 1
        levels = 1 + max((self.measures[child][1] for child in _children(node)), default=0)
        self.measures[node] = (self.values - before, levels)
        return node

    def _compose(self, parent: Any, index: Any) -> Any:
        return super().compose_node(parent, index)

    def _compose_alias(self, parent: Any, index: Any, event: yaml.AliasEvent) -> Any:
        node = self._compose(parent, index)
        if node not in self.measures:
            self._refuse(event, f"the alias *{event.anchor} contains itself")
        self._count(event, *self.measures[node])
        return node

    def _count(self, event: Any, values: int, levels: int) -> None:
        self.values += values
        if self.depth + levels > MAX_DEPTH:
            self._refuse(event, f"more than {MAX_DEPTH} levels")
        if self.values > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES:,} values")

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping whose keys differ."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag not in KEY_TAGS:
                self._refuse(key, "expected a name or an integer as key")
            name = str(self.construct_object(key))
            if name in seen:
                self._refuse(key, f"the key {name} is set twice")
            seen.add(name)
        return node

    def _refuse(self, item: Any, problem: str) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=item.start_mark)


def _children(node: Node) -> list[Node]:
    if isinstance(node, ScalarNode):
        return []
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value


def _represent_text(dumper: _Dumper, text: str) -> ScalarNode:
    """In double quotes, these ends of lines are escaped; elsewhere they are read as a space."""
    style = '"' if LINE_ENDS.search(text) else None
    return dumper.represent_scalar(f"{PREFIX}str", text, style)


def _construct_word(loader: _Loader, node: ScalarNode) -> bool | None:
    return WORDS[node.value.lower()]


def _construct_int(loader: _Loader, node: ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        loader._refuse(node, f"a number of more than {MAX_DIGITS} digits")
    return int(node.value, 0 if node.value[1:2] in ("o", "x") else 10)


def _construct_float(loader: _Loader, node: ScalarNode) -> float:
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _construct_str(loader: _Loader, node: ScalarNode) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in node.value):
        loader._refuse(node, "an escape sequence stands for no character")
    return node.value


for _name, _pattern, _first in IMPLICIT:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{PREFIX}{_name}", re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_representer(str, _represent_text)
for _name, _construct in (
    ("null", _construct_word),
    ("bool", _construct_word),
    ("int", _construct_int),
    ("float", _construct_float),
    ("str", _construct_str),
    ("merge", _construct_str),
):
    _Loader.add_constructor(f"{PREFIX}{_name}", _construct)
