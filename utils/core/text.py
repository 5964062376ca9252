"""Text files, whatever their encoding: class lists and annotations come from many tools.

An encoding is taken from the file's byte order mark, else from its own declaration; else it is
UTF-8; else it is detected. Detection compares how likely the bytes are under a small model of each
script: the share of its usual letters among all, and that words rarely mix scripts. A text that
is about as likely in two encodings is refused.
"""

import codecs
import functools
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.core.errors import shorten
from utils.core.inputs import ReadError, read_file

MAX_BYTES = 2**26
SAMPLE = 5000  # bytes with which an encoding is detected
MARGIN = 2.0  # how much the log-likelihoods of two encodings must differ
MARKS = (  # UTF-32's mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDER = {  # what files that declare the first are written in, by Windows programs
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "cp950",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
}
# Printable ASCII, and escapes of codecs that do not leave it as it is
PRINTABLE = bytes(range(32, 127)).replace(b"\\", b"") + rb"\x41\u0041"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
SINGLE_BYTE = frozenset({"cp1251", "cp1252"})
# In UTF-8: a character beyond U+07FF, an accent in a Latin word, or three such letters in a row
PROOF_OF_UTF8 = re.compile(rb"[\xe0-\xff]|[A-Za-z][\x80-\xff]|[\x80-\xff]([A-Za-z]|[\x80-\xff]{5})")
NOT_ASCII_WORD = re.compile(r"[^\x00-\x7f]+")
NOT_ASCII = re.compile(rb"[^\r\n]*[\x80-\xff][^\r\n]*")

LATIN_LETTERS = frozenset("éèêàçùâîôûëïöüäßñáíóúãõ")
RARE_LATIN_LETTERS = frozenset("åæøœìòÉÈÀÇÖÜÄÑÁÍÓÚÊÂÎÔÅÆØ¿¡")
# Hangul syllables in Unicode are ordered by initial, vowel and final; percent of Korean text
INITIALS = (12, 1.3, 7, 8, 0.8, 7, 5, 6, 0.5, 9, 0.4, 21, 8, 0.4, 3.5, 1.5, 2.3, 2.3, 5)
VOWELS = (18, 5, 1.3, 0.05, 10, 4, 6, 0.5, 11, 2, 0.2, 1.2, 1.5, 9, 0.7, 0.1, 1, 1.2, 10, 2, 16)
FINALS = {0: 55, 1: 6, 4: 12, 8: 7, 16: 4, 17: 2.5, 19: 2.5, 20: 1, 21: 8}
RARE_FINAL = 0.15


class Text(NamedTuple):
    """Decoded text.

    Attributes:
        text: its characters, without a byte order mark.
        encoding: Python's name of its encoding, `utf-8` for UTF-8 with a byte order mark, too.
    """

    text: str
    encoding: str


class TextError(ValueError):
    """Bytes that are not text, or whose encoding is unclear."""


def read_text(path: str | Path, title: str = "") -> Text:
    """Read a text file of at most 64 MiB.

    Args:
        path: the file, which must be regular.
        title: put before the path in error messages, such as an option.

    Raises:
        ReadError: it cannot be read or decoded.
    """
    try:
        return decode_text(read_file(path, title, MAX_BYTES))
    except TextError as error:
        raise ReadError(f"{title} {path}: {error}".strip()) from None


def split_lines(text: str) -> list[str]:
    """Lines that end in LF, CRLF or CR, stripped; `str.splitlines` also splits at other marks."""
    return [line.strip() for line in io.StringIO(text, newline=None)]


def decode_text(data: bytes, declared: str | None = None) -> Text:
    """Decode text.

    Args:
        data: the content of a file.
        declared: the encoding that it names itself; ignored if it cannot be.

    Raises:
        TextError: it is not text, or in an encoding that is unclear.
    """
    encoding = stated_encoding(data, declared) or detect_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(f"not valid {error.encoding.upper()}: expected text in UTF-8") from None
    control = CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise TextError(f"line {line}: not text: has the character U+{ord(control.group()):04X}")
    return Text(text, "utf-8" if encoding == "utf-8-sig" else encoding)


def stated_encoding(data: bytes, declared: str | None = None) -> str | None:
    """The encoding by the byte order mark, else as declared if that can be, else UTF-8 if valid.

    Returns:
        Python's name; None if the encoding must be detected.
    """
    return _marked(data) or _declared(data, declared) or _unicode(data)


def may_be_multibyte(data: bytes) -> bool:
    """Whether UTF-8 text with other characters than ASCII may as well be short words in GBK."""
    return not data.isascii() and PROOF_OF_UTF8.search(data) is None


def _marked(data: bytes) -> str | None:
    return next((encoding for mark, encoding in MARKS if data.startswith(mark)), None)


def _declared(data: bytes, name: str | None) -> str | None:
    """The declared encoding, if the data is valid in it."""
    try:
        encoding = codecs.lookup(name or "").name
        encoding = WIDER.get(encoding, encoding)
        # the declaration was read as ASCII, so it is wrong if it names UTF-16
        if PRINTABLE.decode(encoding) == PRINTABLE.decode("ascii"):
            data.decode(encoding)
            return encoding
    except (LookupError, ValueError):
        pass
    return None


def _unicode(data: bytes) -> str | None:
    """UTF-8, or UTF-16 without a mark, in which every ASCII character has a zero."""
    if b"\0" in data:
        odd, even = data[1::2].count(0), data[::2].count(0)
        encoding = "utf-16-le" if odd > even else "utf-16-be"
        text = _decode(data, encoding) or "\0"
        is_mostly_ascii = max(odd, even) > len(data) / 8
        if is_mostly_ascii and not CONTROL.search(text) and text.count("\n") == data.count(b"\n"):
            return encoding
    return "utf-8" if _decode(data, "utf-8") is not None else None


def _decode(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


# detection


class Script(NamedTuple):
    """An encoding that may be detected.

    Attributes:
        encoding: Python's name.
        share: how usual it is among files that are not UTF-8.
        likelihood: character outside ASCII -> its probability among them.
        alphabet: whether its words mix ASCII and other letters.
    """

    encoding: str
    share: float
    likelihood: Callable[[str], float]
    alphabet: bool = False


def detect_encoding(data: bytes) -> str:
    """Detect the encoding of text that is not UTF-8.

    Args:
        data: one text, or those of several files that were written alike: the more the better.

    Raises:
        TextError: it is valid in none of the known encodings, or about as likely in two.
    """
    sample = b"\n".join(_foreign_lines(data))
    scores = []
    for script in SCRIPTS:
        text = _decode(sample, script.encoding)
        if text is not None and not CONTROL.search(text):
            scores.append((_log_likelihood(text, script), script.encoding, text))
    scores.sort(reverse=True)
    if not scores:
        raise TextError("not text in UTF-8 or another known encoding")
    best, encoding, text = scores[0]
    for score, other, other_text in scores[1:]:
        if text != other_text and best - score < MARGIN:
            raise TextError(
                f"not UTF-8, and may be {encoding} ('{_first_word(text)}') or {other} "
                f"('{_first_word(other_text)}'): save it as UTF-8"
            )
    return encoding


def is_detectable(data: bytes) -> bool:
    """Whether bytes are text in at least one of the encodings that can be detected."""
    texts = (_decode(data, script.encoding) for script in SCRIPTS)
    return any(text is not None and not CONTROL.search(text) for text in texts)


def _foreign_lines(data: bytes) -> list[bytes]:
    """The different lines with other characters than ASCII, up to `SAMPLE` bytes."""
    lines: dict[bytes, None] = {}
    size = 0
    for match in NOT_ASCII.finditer(data):
        if match.group() not in lines:
            lines[match.group()] = None
            size += len(match.group())
        if size > SAMPLE:
            break
    return list(lines)


def _first_word(text: str) -> str:
    match = NOT_ASCII_WORD.search(text)
    return shorten(match.group(), 20) if match else ""


def _log_likelihood(text: str, script: Script) -> float:
    likelihood = functools.cache(script.likelihood)
    total = math.log(script.share)
    previous = " "
    for letter in text:
        if not letter.isascii():
            total += math.log(likelihood(letter))
        total += math.log(_adjacency(previous, letter, script.alphabet))
        previous = letter
    return total


def _adjacency(previous: str, letter: str, alphabet: bool) -> float:
    """How likely a letter of this kind, ASCII or not, follows one of that kind."""
    both = previous.isalpha() and letter.isalpha()
    if not alphabet:
        if not both:
            return 1.0
        return 0.9 if previous.isascii() == letter.isascii() else 0.05
    if letter.isascii():
        return 1.0
    if both and previous.isascii():
        return 0.15
    return 0.04 if both else 0.05  # accents rarely follow each other, or start a word


def _lead_byte(character: str, encoding: str) -> int:
    """The first of the two bytes of a character; 0 if it has other bytes in this encoding."""
    try:
        encoded = character.encode(encoding)
    except UnicodeEncodeError:
        return 0
    return encoded[0] if len(encoded) == 2 else 0


def _chinese(character: str) -> float:
    """GB 2312 has usual characters from B0 to D7, and rare ones after them."""
    lead = _lead_byte(character, "gb2312")
    if lead >= 0xB0:
        return 0.95 / 3755 if lead <= 0xD7 else 0.03 / 3008
    if lead:
        return 0.005 / 700
    is_private = "\ue000" <= character <= "\uf8ff" or character > "\uffff"
    return 1e-9 if is_private else 0.005 / 20000


def _taiwanese(character: str) -> float:
    """Big5 has usual characters from A4 to C6, and rare ones from C9 on."""
    lead = _lead_byte(character, "big5")
    if 0xA4 <= lead <= 0xC6:
        return 0.95 / 5401
    return 0.03 / 7652 if lead >= 0xC9 else 0.005 / 700


def _japanese(character: str) -> float:
    """JIS X 0208 has usual characters from B0 to CF, and rare ones after them."""
    if "\u3041" <= character <= "\u3093":
        return 0.3 / 83
    if "\u30a1" <= character <= "\u30fe":
        return 0.35 / 90
    lead = _lead_byte(character, "euc_jp")
    if lead >= 0xB0:
        return 0.3 / 2965 if lead <= 0xCF else 0.01 / 3390
    return 0.005 / 1000


def _korean(character: str) -> float:
    if "\uac00" <= character <= "\ud7a3":
        rest, final = divmod(ord(character) - 0xAC00, 28)
        initial, vowel = divmod(rest, 21)
        percents = INITIALS[initial], VOWELS[vowel], FINALS.get(final, RARE_FINAL)
        is_usual = _lead_byte(character, "euc_kr") >= 0xB0
        return math.prod(percents) / 100**3 * (1.0 if is_usual else 0.01)
    is_chinese = "\u4e00" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff"
    return 0.01 / 4888 if is_chinese else 0.005 / 1000


def _latin(character: str) -> float:
    if character in LATIN_LETTERS:
        return 0.65 / len(LATIN_LETTERS)
    return (0.06 if character in RARE_LATIN_LETTERS else 0.005) / 30


def _cyrillic(character: str) -> float:
    if "а" <= character <= "я" or character == "ё":
        return 0.9 / 33
    return (0.05 if "А" <= character <= "Я" else 0.005) / 33


SCRIPTS: Sequence[Script] = (
    Script("gb18030", 0.35, _chinese),
    Script("cp949", 0.15, _korean),
    Script("cp932", 0.15, _japanese),
    Script("cp950", 0.1, _taiwanese),
    Script("cp1252", 0.2, _latin, alphabet=True),
    Script("cp1251", 0.04, _cyrillic),
    Script("euc_jp", 0.01, _japanese),
)
