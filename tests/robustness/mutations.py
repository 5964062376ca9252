"""Damage to files: to their bytes, to their lines and words, and to the values in them."""

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

NASTY_WORDS = (
    *("", "0", "-1", "1", "2", "nan", "NaN", "inf", "-Infinity", "1e999", "-1e-999", "1e9", "1e10"),
    *("2147483648", "-9223372036854775809", "1" * 400, "0x10", "1_000", "1,5", "٣", "½", "-0.0"),
    *(
        "true",
        "null",
        "None",
        "[]",
        "{}",
        "[[[[]]]]",
        "~",
        "*a",
        "&a",
        "!!int 3",
        "<<",
        "%s",
        "{0}",
    ),
    *("../../../etc/passwd", "/dev/zero", "/", ".", "..", "a/b", "a\\b", "C:\\x", "~root", "a\0b"),
    *(
        "\ufeff",
        "\u2028",
        "\x85",
        "\x1b[31m",
        "é",
        "猫",
        "\U0001f600",
        "e\u0301",
        "\u202e",
        "x" * 999,
    ),
    *("<a>", "</object>", "&amp;", "&b;", "<!--", "<![CDATA[", "]]>", "#", ";", "=", "[yolo]", ","),
    *("'", '"', "`", "\t", " ", "\n", "\r", "---", "...", "- ", ": ", "? ", "| ", "@"),
)
NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 6, 7, 31, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.5),
    *(1e-300, 1e300, float("nan"), float("inf"), -float("inf"), "", "a", "0", "1", [], {}, [[]]),
    *(
        [0],
        [1, 2],
        [None],
        {"a": 1},
        {"0": 0},
        {"": ""},
        "none",
        "auto",
        "x" * 20_000,
        list(range(300)),
    ),
)
NASTY_BYTES = (
    *(b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\x1a", b"\xc3\x28", b"\xed\xa0\x80", b"PK\x03\x04"),
)
WORD = re.compile(r"[^\W]+(?:[.+-]\w+)*|\S")
MAX_BYTES = 2**18  # repeated insertions stop growing here, unless the file was larger

Mutate = Callable[[random.Random, bytes], bytes]


# bytes


def _span(rng: random.Random, size: int) -> tuple[int, int]:
    """A part of something with `size` items, usually a short one."""
    start = rng.randrange(size + 1)
    longest = rng.choice((1, 4, 16, 256, size + 1))
    return start, min(size, start + rng.randrange(longest + 1))


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 16))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    start, nasty = rng.randrange(len(data)), rng.choice(NASTY_BYTES)
    return data[:start] + nasty + data[start + len(nasty) :]


def _delete(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, len(data))
    return data[:start] + data[end:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    new = rng.choice((*NASTY_BYTES, rng.randbytes(rng.randrange(1, 32))))
    return data[:start] + new + data[start:]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _duplicate(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, len(data))
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _move(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, len(data))
    place = rng.randrange(len(data) + 1)
    rest = data[:start] + data[end:]
    return rest[:place] + data[start:end] + rest[place:]


BYTES: tuple[Mutate, ...] = (
    _flip,
    _flip,
    _overwrite,
    _delete,
    _insert,
    _truncate,
    _duplicate,
    _move,
)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change bytes anywhere."""
    return rng.choice(BYTES)(rng, data) if data else rng.randbytes(rng.randrange(9))


# lines and words


def _replace_word(rng: random.Random, text: str) -> str:
    words = list(WORD.finditer(text))
    if not words:
        return rng.choice(NASTY_WORDS)
    word = rng.choice(words)
    # another word of the file is of the right kind in the wrong place
    new = rng.choice(NASTY_WORDS) if rng.random() < 0.7 else rng.choice(words).group()
    return text[: word.start()] + new + text[word.end() :]


def _change_lines(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    start, end = _span(rng, len(lines))
    part = lines[start:end]
    place = rng.randrange(len(lines) + 1)
    rest = lines[:start] + lines[end:]
    changed = rng.choice(
        (
            rest,  # deleted
            lines[:end] + part * rng.choice((1, 2, 30)) + lines[end:],  # repeated
            lines[:place] + part + lines[place:],  # repeated, or nested, elsewhere
            rest[:place] + part + rest[place:],  # moved
            lines[:start] + ["  " + line for line in part] + lines[end:],  # indented
        )
    )
    return "".join(changed)


def mutate_text(rng: random.Random, data: bytes) -> bytes:
    """Replace words, or delete, repeat, nest, move or indent lines; sometimes encode otherwise."""
    text = data.decode("utf-8", "surrogateescape")
    text = rng.choice((_replace_word, _replace_word, _change_lines))(rng, text)
    if rng.random() < 0.03:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "gbk", "cp1252")), "replace")
    return text.encode("utf-8", "surrogateescape")


# values


def mutate_value(rng: random.Random, value: Any) -> Any:
    """A copy of nested values with one of them changed."""
    items = _items(value)
    if not items or rng.random() < 0.15:
        return _change(rng, value)
    key = rng.choice(items)
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = mutate_value(rng, value[key])
    return changed


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, (list, tuple)) else []


def _change(rng: random.Random, value: Any) -> Any:
    """Another value, another key, or another number of them."""
    if isinstance(value, (Tensor, np.ndarray)) and rng.random() < 0.9:
        change = _change_tensor if isinstance(value, Tensor) else _change_array
        return change(rng, value)
    if isinstance(value, (dict, list, tuple)) and value and rng.random() < 0.8:
        return _change_items(rng, value)
    if isinstance(value, (int, float)) and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value - 1, value * 1000, value // 2, repr(value)))
    wrapped = ([value], {"a": value}, [value, value])
    return rng.choice((*NASTY_VALUES, *wrapped))


def _change_items(rng: random.Random, value: Any) -> Any:
    keys = _items(value)
    key, other = rng.choice(keys), rng.choice(keys)
    if isinstance(value, dict):
        changed = dict(value)
        item = changed.pop(key)
        new_key = rng.choice((other, 0, -1, None, 1.5, "", "a", f"{key}x", "x" * 5000))
        return {**changed, **rng.choice(({}, {new_key: item}, {key: value[other]}))}
    rest = [item for index, item in enumerate(value) if index != key]
    extra = [value[key]] * rng.choice((1, 3, 300))
    return rng.choice((rest, [*value, *extra], value[::-1], [*rest, value]))


DTYPES = (
    *(torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8),
    *(torch.bool, torch.complex64, torch.float8_e5m2, torch.uint16),
)


def _change_tensor(rng: random.Random, tensor: Tensor) -> Any:
    """Another type, shape, layout or content."""
    changes: list[Callable[[], Any]] = [
        lambda: tensor.to(rng.choice(DTYPES)),
        lambda: torch.full_like(tensor, rng.choice((0, 1, -1, 100)), dtype=torch.float32),
        lambda: torch.full(tensor.shape, rng.choice((float("nan"), float("inf"), -1e30, 1e38))),
        lambda: tensor.reshape(-1)[: rng.randrange(tensor.numel() + 1)].clone(),
        lambda: tensor.flatten(),
        lambda: tensor[None],
        lambda: tensor.clone().expand(3, *tensor.shape),
        lambda: tensor.float().expand(10**6, *tensor.shape),
        lambda: torch.zeros(rng.choice(((), (0,), (1,), (0, 3), (10**6,), (1,) * 60))),
        lambda: tensor.to("meta"),
        lambda: tensor.to_sparse(),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: torch.nn.Parameter(tensor.float()),
        lambda: tensor.tolist() if tensor.numel() < 1000 else None,
        lambda: torch.cat([tensor, tensor]),
        lambda: tensor.mT if tensor.ndim > 1 else tensor,
    ]
    try:
        return rng.choice(changes)()
    except (RuntimeError, NotImplementedError, TypeError):  # not for every type and shape
        return torch.zeros(2)


def _change_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    changes: list[Callable[[], np.ndarray]] = [
        lambda: array.astype(rng.choice(("f8", "i8", "i2", "u1", "?", "c8", "U3", "S2"))),
        lambda: np.full_like(array, rng.choice((0, 1, 2, 100)) - 1),
        lambda: np.where(np.zeros(array.shape, bool), array, rng.choice((np.nan, np.inf, -1e30))),
        lambda: array[: len(array) // 2],
        lambda: array[None],
        lambda: np.concatenate([array, array]),
        lambda: array[::-1],
        lambda: np.zeros(rng.choice(((), (0,), (3,), (0, 4), (10**5,)))),
        lambda: np.array([{"a": 1}], dtype=object),
        lambda: np.array(["a"]),
        lambda: np.zeros(2, [("a", "f4"), ("b", "i4")]),
    ]
    try:
        return rng.choice(changes)()
    except (ValueError, TypeError, IndexError, OverflowError):  # not for every type and shape
        return np.zeros(2)
