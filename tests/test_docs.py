"""What all documents have in common: links, commands and keys that exist, translations in step.

A translation `X.zh-CN.md` has the headings, commands, code, keys and numbers of `X.md`; its words
are its own.
"""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import utils.data.__main__ as data_cli
from utils.core.config import update_config
from utils.core.errors import UserError
from utils.core.overrides import parse_overrides
from utils.core.schema import Config

PROJECT = Path(__file__).parents[1]
DOCUMENTS = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]
TRANSLATED = {path: path.with_suffix(".zh-CN.md") for path in DOCUMENTS}
PAIRS = [(path, other) for path, other in TRANSLATED.items() if other.is_file()]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
NUMBER = re.compile(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d")
CHINESE = "[\u4e00-\u9fff]"
UNUSUAL = rf"{CHINESE}[A-Za-z0-9]|[A-Za-z0-9]{CHINESE}|{CHINESE} ?[,;:!?()]|[,;!?(] ?{CHINESE}"
KEY_VALUE = re.compile(r"^'?([a-z]+\.)?[a-z_]+=[^=].*$")


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and content of each fenced block, without comments."""
    found = BLOCK.findall(read(path))
    return [(language, re.sub(r"[ \t]+#.*", "", text)) for language, text in found]


def prose(path: Path) -> str:
    return BLOCK.sub("", read(path))


def sections(path: Path) -> list[tuple[int, str]]:
    """Level of each heading, and the text below it, without fenced blocks."""
    parts = re.split(r"^(#+) (.*)$", prose(path), flags=re.MULTILINE)
    return [(len(level), text) for level, text in zip(parts[1::3], parts[3::3], strict=True)]


def rows(path: Path) -> list[list[str]]:
    """The numbers in each row of a table, outside of code."""
    lines = [line for line in prose(path).splitlines() if line.startswith("|")]
    return [NUMBER.findall(SPAN.sub("", line)) for line in lines]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_local_links_lead_somewhere(path: Path):
    for target, anchor in LINK.findall(prose(path)):
        file = (path.parent / target) if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}{anchor}"


def test_what_newcomers_read_is_translated():
    translated = {name_of(path) for path, _ in PAIRS}
    assert translated >= {"README.md", "docs/migration.md", "docs/faq.md"}


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda path: path.name)
def test_a_translation_is_in_step(english: Path, chinese: Path):
    assert blocks(chinese) == blocks(english)
    assert rows(chinese) == rows(english)
    ours, theirs = sections(chinese), sections(english)
    assert [level for level, _ in ours] == [level for level, _ in theirs]
    for (_, own), (_, original) in zip(ours, theirs, strict=True):
        assert set(SPAN.findall(own)) == set(SPAN.findall(original))
        extra = set(NUMBER.findall(LINK.sub("", SPAN.sub("", own))))
        assert extra <= set(NUMBER.findall(original)), "numbers that the original lacks"
    assert f"({chinese.name})" in read(english) and f"({english.name})" in read(chinese)


@pytest.mark.parametrize("path", [other for _, other in PAIRS], ids=name_of)
def test_chinese_is_set_as_usual(path: Path):
    """Full-width punctuation, and a space between Chinese and Latin."""
    for line in prose(path).splitlines():
        text = LINK.sub("", SPAN.sub("A", line)).replace("*", "")
        wrong = (
            rf"{CHINESE}[A-Za-z0-9]|[A-Za-z0-9]{CHINESE}|{CHINESE} ?[,;:!?()]|[,;!?(] ?{CHINESE}"
        )
        found = re.search(wrong, text)
        assert not found, f"{found.group() if found else ''}: {line}"


def commands() -> list[str]:
    """Every `python ...` of the documents, also in the text of those for newcomers."""
    found: dict[str, None] = {}
    for path in DOCUMENTS:
        texts = [text.replace("\\\n", "") for language, text in blocks(path) if not language]
        lines = [line for text in texts for line in re.split(r" && |\n", text)]
        lines += SPAN.findall(prose(path)) if TRANSLATED[path].is_file() else []
        for line in lines:
            is_complete = not re.search(r"\.\.\.|\b(FILE|FOLDER|RUN|VALUE|X)\b", line)
            if line.startswith(("python ", "torchrun ")) and is_complete:
                found[" ".join(line.split())] = None
    return list(found)


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Parse the words after `python`; None: another program, which other tests try."""
    if words[:2] == ["-m", "utils.data"]:
        return data_cli.parse(words[2:])
    script = next((index for index, word in enumerate(words) if word.endswith(".py")), None)
    if script is None:
        return None
    monkeypatch.setattr("sys.argv", words[script:])
    return importlib.import_module(words[script].removesuffix(".py")).parse()


def test_commands_are_valid(monkeypatch: pytest.MonkeyPatch):
    parsed = 0
    for line in commands():
        try:
            args = parse(shlex.split(line)[1:], monkeypatch)
            update_config(Config(), parse_overrides(getattr(args, "overrides", ())))
        except UserError as error:
            pytest.fail(f"{line}: {error}")
        parsed += args is not None
    assert parsed > 60


def test_the_keys_of_migration_and_faq_exist():
    checked = 0
    for name in ("migration", "faq"):
        for span in SPAN.findall(prose(PROJECT / f"docs/{name}.md")):
            if KEY_VALUE.match(span) and not span.endswith(("=", "=FILE")):
                update_config(Config(), parse_overrides(shlex.split(span)))
                checked += 1
    assert checked > 40
