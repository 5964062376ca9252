"""YOLO labels that tools and hands have damaged, read by `eval.py` and `train.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from robust_data import BOX, Read, assert_read

UNREADABLE = {"annotation unreadable": 1}
BEYOND = {"box beyond the image": 1}
POLYGON = {"polygon": 1}
REPEATED = {"box repeated": 1}
LINE = "1 0.46875 0.34375 0.3125 0.34375"  # is BOX
# name -> (labels of b.png, counts of rules, boxes; None: the image is skipped)
LABELS: dict[str, tuple[str, dict[str, int], Sequence[tuple] | None]] = {
    **{
        f"number {word}": (f"1 {word} 0.34375 0.3125 0.34375", UNREADABLE, None)
        for word in "nan inf 1e400 --1 0,5 0x1 half null ½ 1_0 1000000001".split()  # noqa: SIM905
    },
    "pixels": ("1 15 22 10 22", UNREADABLE, None),
    "percent": ("1 46% 34% 31% 34%", UNREADABLE, None),
    "commas": (LINE.replace(" ", ","), UNREADABLE, None),
    "name of the class": (LINE.replace("1 ", "cross ", 1), UNREADABLE, None),
    "one number missing": (LINE.rpartition(" ")[0], UNREADABLE, None),
    "a score at the end": (f"{LINE} 0.9", UNREADABLE, None),
    "class only": ("1", UNREADABLE, None),
    "comment": (f"# boxes\n{LINE}", UNREADABLE, None),
    "conflict of git": (f"<<<<<<< HEAD\n{LINE}\n=======\n{LINE}\n>>>>>>> main", UNREADABLE, None),
    "one bad line among good ones": (f"{LINE}\n1 a b c d\n{LINE}", UNREADABLE, None),
    "class as a fraction": (LINE.replace("1 ", "1.0 ", 1), {}, [BOX]),
    "exponents": (LINE.replace("0.3125", "3125e-4"), {}, [BOX]),
    "signs": (LINE.replace(" 0.", " +.", 1), {}, [BOX]),
    "tabs": (LINE.replace(" ", "\t \t"), {}, [BOX]),
    "line ends of Windows": (f"{LINE}\r\n\r\n", {}, [BOX]),
    "line ends of old systems": (f"{LINE}\r\r", {}, [BOX]),
    "spaces around": (f"\n\n   {LINE}   \n", {}, [BOX]),
    "byte order mark": (f"\ufeff{LINE}", {}, [BOX]),
    "empty": ("", {}, []),
    "blank": ("  \n\t\n", {}, []),
    "twice": (f"{LINE}\n{LINE}", REPEATED, [BOX]),
    "a thousand times": (f"{LINE}\n" * 1000, {"box repeated": 999}, [BOX]),
    "width 0": ("1 0.5 0.5 0 0.5", {"box empty": 1}, []),
    "negative width": (
        "1 0.46875 0.34375 -0.3125 0.34375", {"box with swapped corners": 1}, [BOX],
    ),
    "outside": ("1 1.5 0.5 0.2 0.2", {**BEYOND, "box empty": 1}, []),
    "beyond": ("1 0.5 0.5 1.5 1.5", BEYOND, [("cross", 0, 0, 32, 64)]),
    "rounded up": ("1 0.5 0.5 1.000001 1.000001", {}, [("cross", 0, 0, 32, 64)]),
    "polygon": ("1 0.3125 0.171875 0.625 0.171875 0.5 0.515625", POLYGON, [BOX]),
    "polygon of an odd number": ("1 0.3125 0.171875 0.625 0.171875 0.5", UNREADABLE, None),
    "polygon of one point": ("1 0.5 0.5", UNREADABLE, None),
    "polygon that is a line": ("1 0.1 0.1 0.1 0.2 0.1 0.3", {**POLYGON, "box empty": 1}, []),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", LABELS)
def test_one_label_file_among_good_ones(
    case: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]
):
    text, counts, boxes = LABELS[case]
    (written("yolo") / "labels/val/b.txt").write_bytes(text.encode())
    assert_read(evaluated("yolo"), counts, boxes)


CLASSES: dict[str, str] = {
    "6 0.5 0.5 0.1 0.1": "labels/val/b.txt:1: class 6 is not in the class list; expected 0 to 5",
    "-1 0.5 0.5 0.1 0.1": "class -1 is not in the class list",
    "1.5 0.5 0.5 0.1 0.1": "class 1.5 is not in the class list",
    "999999999 0.5 0.5 0.1 0.1": "class 999999999 is not in the class list",
}


@pytest.mark.parametrize("line", CLASSES)
def test_a_class_that_does_not_exist_is_one_line(
    line: str,
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    (written("yolo") / "labels/val/b.txt").write_text(line)
    assert CLASSES[line] in refused("eval", *data_words("yolo"))


LISTS: dict[str, tuple[str | None, str]] = {  # content of data.yaml -> message
    "missing": (None, "data.classes: expected a list of class names"),
    "empty": ("", "names: expected a list of class names"),
    "names null": ("names:", "names: expected a list"),
    "names empty": ("names: []", "the class list is empty"),
    "names as text": ("names: circle, cross", "names: expected a list"),
    "two equal names": ("names: [a, b, a]", "class 'a' is listed twice"),
    "equal after spaces": ("names: [a, 'a']", "class 'a' is listed twice"),
    "true as a name": ("names: [a, true]", "got True: write it in quotes"),
    "null as a name": ("names: [a, null]", "write it in quotes"),
    "fraction as a name": ("names: [a, 1.5]", "write it in quotes"),
    "list as a name": ("names: [[a], b]", "write it in quotes"),
    "name of two lines": ('names: ["a\\nb"]', "expected one line"),
    "name of 300 letters": (f"names: [{'x' * 300}]", "at most 200 characters"),
    "gap in the numbers": ("names: {0: a, 2: b}", "a map from 0, 1, 2"),
    "numbers from 1": ("names: {1: a, 2: b}", "a map from 0, 1, 2"),
    "other count": ("nc: 7\nnames: [a]", "nc: expected 1 as in names, got 7"),
    "count in words": ("nc: many\nnames: [a]", "nc: expected 1 as in names, got 'many'"),
    "key twice": ("names: [a]\nnames: [b]", "the key names is set twice"),
    "tag": ("names: !!python/object/apply:os.system [id]", "is not supported"),
    "alias of itself": ("names: &n [*n]", "contains itself"),
    "aliases that grow": (
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "more than 100,000 values",
    ),
    "two documents": ("names: [a]\n---\nnames: [b]", "not valid YAML"),
    "tabs": ("names:\n\t- a", "expected spaces, found a tab"),
    "control character": ("names: [a\x01]", "data.yaml: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LISTS)
def test_a_class_list_that_cannot_be_used_is_one_line(
    case: str, written: Callable[[str], Path], refused: Callable[..., str]
):
    text, words = LISTS[case]
    root = written("yolo")
    (root / "data.yaml").unlink()
    if text is not None:
        (root / "data.yaml").write_text(text)
    data = ("data.format=yolo", "data.root=data", "data.train=val")
    assert words in refused("train", "--config", "shapes.yaml", "input_size=64", *data)
