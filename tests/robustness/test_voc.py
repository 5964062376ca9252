"""Pascal VOC files that tools and hands have damaged, read by `eval.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from robust_data import BOX, Read, assert_read

UNREADABLE = {"annotation unreadable": 1}
BEYOND = {"box beyond the image": 1}
XMIN, XMAX = "<xmin>11<", "<xmax>20<"
OBJECT = (
    "<object><name>cross</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>12</ymin>"
    "<xmax>20</xmax><ymax>33</ymax></bndbox></object>"
)

# name -> (text in the XML, what replaces it, counts of rules, boxes; None: the image is skipped)
Case = tuple[str, str, dict[str, int], Sequence[tuple] | None]
NUMBERS: dict[str, Case] = {
    word: (XMIN, f"<xmin>{word}<", UNREADABLE, None)
    for word in (
        *("inf", "-inf", "nan", "1e400", "1" + "0" * 40, "--5", "", " ", "true", "1,5", "0x1f"),
        *("１１", "11 12", "1_1", "eleven", "11px", "11.", "+", "1e", "&#x661;"),
    )
    if word != "11."
}
BOXES: dict[str, Case] = {
    "exponent": (XMIN, "<xmin>1.1e1<", {}, [BOX]),
    "dot at the end": (XMIN, "<xmin>11.<", {}, [BOX]),
    "spaces and lines": (XMIN, "<xmin>\n\t 11 \n<", {}, [BOX]),
    "fraction": (XMIN, "<xmin>11.5<", {}, [("cross", 10.5, 11, 20, 33)]),
    "negative": (XMIN, "<xmin>-5<", BEYOND, [("cross", 0, 11, 20, 33)]),
    "counted from 0": (XMIN, "<xmin>0<", {}, [("cross", 0, 11, 20, 33)]),
    "largest": (XMAX, "<xmax>1e9<", BEYOND, [("cross", 10, 11, 32, 33)]),
    "beyond the largest": (XMAX, "<xmax>1000000001<", UNREADABLE, None),
    "swapped": (
        f"{XMIN}/xmin><ymin>12</ymin>{XMAX}",
        "<xmin>20</xmin><ymin>12</ymin><xmax>11<",
        {"box with swapped corners": 1},
        [BOX],
    ),
    "outside": (
        f"{XMIN}/xmin><ymin>12</ymin>{XMAX}",
        "<xmin>50</xmin><ymin>1</ymin><xmax>60<",
        {**BEYOND, "box empty": 1},
        [],
    ),
    "twice": ("</annotation>", OBJECT + "</annotation>", {"box repeated": 1}, [BOX]),
    "of two classes": (
        "</annotation>",
        OBJECT.replace("cross", "star") + "</annotation>",
        {},
        [BOX, ("star", *BOX[1:])],
    ),
}
STRUCTURES: dict[str, Case] = {
    "no name": ("<name>cross</name>", "", UNREADABLE, None),
    "empty name": ("<name>cross<", "<name> <", UNREADABLE, None),
    "two names": ("<name>cross<", "<name>star</name><name>cross<", UNREADABLE, None),
    "name of 300 letters": ("<name>cross<", f"<name>{'x' * 300}<", UNREADABLE, None),
    "name in parts": ("<name>cross<", "<name><b>cross</b><", UNREADABLE, None),
    "name in CDATA": ("<name>cross<", "<name><![CDATA[cross]]><", {}, [BOX]),
    "name with a comment": ("<name>cross<", "<name>cross<!-- or star --><", {}, [BOX]),
    "name with an entity": ("<name>cross<", "<name>&#99;ross<", {}, [BOX]),
    "unknown entity": ("<name>cross<", "<name>&cross;<", UNREADABLE, None),
    "no box": ("bndbox", "polygon", UNREADABLE, None),
    "no corner": ("<xmin>11</xmin>", "", UNREADABLE, None),
    "flag 2": ("<difficult>0<", "<difficult>2<", UNREADABLE, None),
    "flag true": ("<difficult>0<", "<difficult>True<", {}, [BOX]),
    "no flag": ("<difficult>0</difficult>", "", {}, [BOX]),
    "capitals": ("<bndbox>", "<BndBox>", UNREADABLE, None),  # closed by another tag
    "namespace": ("<annotation>", "<annotation xmlns='http://example.com/voc'>", {}, [BOX]),
    "attributes": ("<object>", "<object id='3' xml:lang='en'>", {}, [BOX]),
    "other root": ("annotation>", "html>", UNREADABLE, None),
    "group of objects": ("<object>", "<objects><object>", UNREADABLE, None),
    "cut off": ("</annotation>", "", UNREADABLE, None),
    "text after the end": ("</annotation>", "</annotation>\n}", UNREADABLE, None),
    "two roots": ("</annotation>", "</annotation><annotation/>", UNREADABLE, None),
    "text before the start": ("<annotation>", "\n\n  <annotation>", {}, [BOX]),
    "entities that grow": (
        "<annotation>",
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]><annotation>',
        UNREADABLE,
        None,
    ),
    "document type": (
        "<annotation>",
        '<!DOCTYPE annotation SYSTEM "voc.dtd"><annotation>',
        {},
        [BOX],
    ),
    "deep": ("</annotation>", "<a>" * 10_000 + "</a>" * 10_000 + "</annotation>", {}, [BOX]),
    "other size": ("<width>32<", "<width>999<", {"size differs from annotation": 1}, [BOX]),
    "size in words": ("<width>32<", "<width>wide<", {"size differs from annotation": 1}, [BOX]),
    "size 0": ("<width>32<", "<width>0<", {}, [BOX]),
    "no size": ("<size><width>32</width><height>64</height></size>", "", {}, [BOX]),
    "two sizes": ("<size>", "<size/><size>", UNREADABLE, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*NUMBERS, *BOXES, *STRUCTURES])
def test_one_annotation_among_good_ones(
    case: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]
):
    old, new, counts, boxes = {**NUMBERS, **BOXES, **STRUCTURES}[case]
    path = written("voc") / "Annotations/b.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    assert_read(evaluated("voc"), counts, boxes)


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / "Annotations/b.xml"
        path.write_text(path.read_text().replace(old, new))

    return edit


def listed(text: str) -> Callable[[Path], None]:
    return lambda root: (root / "ImageSets/Main/val.txt").write_bytes(text.encode())


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown class": (replaced("cross", "crows"), "class 'crows' is not in the class list; d"),
    "class in capitals": (replaced("cross", "Cross"), "class 'Cross' is not in the class list; d"),
    "empty list": (listed(""), "val.txt: is empty: expected one image per line"),
    "blank list": (listed("\n \n\t\n"), "val.txt: is empty: expected one image per line"),
    "list of other images": (listed("x\ny\n"), "no usable image in split 'val' of data: 2 x image"),
    "binary list": (listed("a\0b\n"), "val.txt: "),
    "list of a long name": (listed("x" * 5000), "no usable image in split 'val' of data: 1 x"),
    "no images": (renamed("JPEGImages", "images"), "expected the folder"),
    "no annotations": (renamed("Annotations", "labels"), "expected the folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dataset_that_cannot_be_used_is_one_line(
    case: str,
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    edit, words = REFUSED[case]
    edit(written("voc"))
    assert words in refused("eval", *data_words("voc"))


LISTS: dict[str, tuple[str, dict[str, int]]] = {
    "twice": ("a\nb\nb\nc\n", {"image listed twice": 1}),
    "with suffixes": ("a.jpg\nb.png\nc.png", {}),
    "with a missing one": ("a\nb\nc\nnone", {"image missing": 1}),
    "with flags of a class": ("a  1\nb -1\nc  0\n", {}),
    "line ends of old systems": ("a\rb\rc\r", {}),
    "byte order mark": ("\ufeffa\nb\nc", {}),
    "other case": ("A\nB\nC.PNG\n", {}),
    "quotes": ("\"a\"\nb\n'c'", {"file name with quotes or backslashes": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LISTS)
def test_lists(case: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]):
    text, counts = LISTS[case]
    listed(text)(written("voc"))
    assert_read(evaluated("voc"), counts, [BOX])
