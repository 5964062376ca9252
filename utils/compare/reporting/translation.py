"""The report in another language: phrases for its English text, templates for the long parts.

`languages/<language>/phrases.yaml` maps English to the translation. In both, `{word}` stands for
any text within a sentence, such as the name of a setting; `{word:t}` for text that is translated,
too, `{word:n}` for a number, and `{word:i}` for an interval. What no phrase covers stays English: a
report is never less than whole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from utils.core.yaml_text import load_yaml

Language = Literal["en", "zh"]
LANGUAGES: tuple[str, ...] = get_args(Language)
LANGUAGE_FOLDER = Path(__file__).with_name("languages")
PLACEHOLDER = re.compile(r"\{(\w+)(:[nit])?\}")
NUMBER = r"(?:< )?[+−-]?\d(?:[\d,.e-]*\d)?"
TEXT = r"(?:(?!\. ).)+?"
VALUES = {"": TEXT, ":t": TEXT, ":n": f"(?:more than )?{NUMBER}|–", ":i": f"{NUMBER} to {NUMBER}|–"}
MAX_TEXT = 2000  # characters; only names are longer, and matching them takes long
JOINT = re.compile("(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")  # no space inside Chinese
WORD = re.compile("[A-Za-z]{2}")


@dataclass(frozen=True)
class Phrase:
    """A phrase and its translation.

    Attributes:
        pattern: matches a text that begins with the phrase and goes on with another one, or ends.
        own: the translation, with placeholders.
        typed: placeholders whose values are translated, too.
        weight: number of characters that are given; of two phrases, the one with more is meant.
        is_sentence: whether other text may follow.
    """

    pattern: re.Pattern[str]
    own: str
    typed: frozenset[str]
    weight: int
    is_sentence: bool


class Translator:
    """Translates texts of a report.

    Args:
        phrases: English to the translation, both with placeholders.

    Attributes:
        untranslated: texts with words that no phrase covered.
    """

    def __init__(self, phrases: Mapping[str, str]) -> None:
        found = [_phrase(english, own) for english, own in phrases.items()]
        self._phrases = sorted(found, key=lambda phrase: -phrase.weight)
        self.untranslated: set[str] = set()

    def __call__(self, text: str) -> str:
        """Translate a text as a whole, else sentence by sentence."""
        if len(text) > MAX_TEXT:
            return text
        for phrase in self._phrases:
            match = phrase.pattern.fullmatch(text)
            if match:
                return self._fill(phrase, match)
        done = ""
        while text:
            own, end = self._first_sentence(text) or self._keep(text)
            done += own
            text = text[end:].lstrip()
        return done

    def _first_sentence(self, text: str) -> tuple[str, int] | None:
        """The translation of the shortest beginning that is a sentence, and its length."""
        found = [(phrase, phrase.pattern.match(text)) for phrase in self._phrases]
        matches = [(each, match) for each, match in found if match and each.is_sentence]
        if not matches:
            return None
        phrase, match = min(matches, key=lambda pair: pair[1].end())
        return self._fill(phrase, match), match.end()

    def _keep(self, text: str) -> tuple[str, int]:
        """The first sentence as it is, and its length."""
        sentence = re.split(r"(?<=\.) ", text, maxsplit=1)[0]
        if WORD.search(sentence):
            self.untranslated.add(sentence)
        following = " " if len(sentence) < len(text) else ""
        return sentence + following, len(sentence)

    def _fill(self, phrase: Phrase, match: re.Match[str]) -> str:
        values = match.groupdict()
        for name in phrase.typed:
            values[name] = self(values[name])
        return JOINT.sub("", phrase.own.format_map(values))


def _phrase(english: str, own: str) -> Phrase:
    placeholders = list(PLACEHOLDER.finditer(english))
    expression, end = "", 0
    for placeholder in placeholders:
        expression += re.escape(english[end : placeholder.start()])
        expression += f"(?P<{placeholder[1]}>{VALUES[placeholder[2] or '']})"
        end = placeholder.end()
    expression += re.escape(english[end:]) + r"(?= |$)"
    typed = frozenset(placeholder[1] for placeholder in placeholders if placeholder[2])
    weight = len(PLACEHOLDER.sub("", english))
    return Phrase(re.compile(expression), own, typed, weight, english.endswith("."))


@lru_cache
def read_phrases(language: Language) -> Mapping[str, str]:
    """The table of a language; empty for English."""
    return {} if language == "en" else load_yaml(LANGUAGE_FOLDER / language / "phrases.yaml")
