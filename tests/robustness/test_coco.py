"""COCO files that tools and hands have damaged, read by `eval.py`."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from robust_data import BOX, Read, assert_read

UNREADABLE = {"annotation unreadable": 1}
BEYOND = {"box beyond the image": 1}
QUOTED = {"number in quotes": 1}
HUGE = 10**400


def bbox(*values: Any) -> dict[str, Any]:
    return {"bbox": list(values)}


# name -> (changes to b.png's annotation, counts of rules, boxes; None: the image is skipped)
Case = tuple[dict[str, Any], dict[str, int], Sequence[tuple] | None]
ROWS: dict[str, Case] = {
    "not a number": (bbox(10, 11, float("nan"), 22), UNREADABLE, None),
    "infinite": (bbox(10, 11, float("inf"), 22), UNREADABLE, None),
    "huge integer": (bbox(10, 11, HUGE, 22), UNREADABLE, None),
    "null": (bbox(10, None, 10, 22), UNREADABLE, None),
    "true": (bbox(10, 11, True, 22), UNREADABLE, None),
    "words": (bbox("ten", 11, 10, 22), UNREADABLE, None),
    "text": (bbox("10", " 11 ", "1e1", "22.0"), QUOTED, [BOX]),
    "empty text": (bbox("", 11, 10, 22), UNREADABLE, None),
    "list in the list": (bbox([10], 11, 10, 22), UNREADABLE, None),
    "three numbers": (bbox(10, 11, 10), UNREADABLE, None),
    "five numbers": (bbox(10, 11, 10, 22, 0), UNREADABLE, None),
    "no numbers": (bbox(), UNREADABLE, None),
    "a mapping": ({"bbox": {"x": 10, "y": 11, "w": 10, "h": 22}}, UNREADABLE, None),
    "text instead of a list": ({"bbox": "10 11 10 22"}, UNREADABLE, None),
    "null instead of a list": ({"bbox": None}, UNREADABLE, None),
    "width 0": (bbox(10, 11, 0, 22), {"box empty": 1}, []),
    "negative width": (bbox(20, 11, -10, 22), {"box with swapped corners": 1}, [BOX]),
    "negative zero": (bbox(-0.0, 11, 20, 22), {}, [("cross", 0, 11, 20, 33)]),
    "before the image": (bbox(-30, 11, 50, 22), BEYOND, [("cross", 0, 11, 20, 33)]),
    "whole image and more": (bbox(-1e9, -1e9, 1e9, 1e9), {**BEYOND, "box empty": 1}, []),
    "tiny": (bbox(10, 11, 1e-300, 22), {"box empty": 1}, []),
    "crowd": ({"iscrowd": 1}, {"crowd region": 1}, [BOX]),
    "crowd in words": ({"iscrowd": "yes"}, {**QUOTED, "crowd region": 1}, [BOX]),
    "crowd 2": ({"iscrowd": 2}, UNREADABLE, None),
    "crowd as a list": ({"iscrowd": []}, UNREADABLE, None),
    "crowd null": ({"iscrowd": None}, {}, [BOX]),
    "image unknown": ({"image_id": 12345}, {"annotation without an image": 1}, []),
    "image null": ({"image_id": None}, {"annotation without an image": 1}, []),
    "image true": ({"image_id": True}, {"annotation without an image": 1}, []),
    "image as text": ({"image_id": "99"}, {"identifier in quotes": 1}, [BOX]),
    "image as a fraction": ({"image_id": 99.0}, {}, [BOX]),
    "image huge": ({"image_id": HUGE}, {"annotation without an image": 1}, []),
    "category as text": ({"category_id": "1"}, {"identifier in quotes": 1}, [BOX]),
    "category as a fraction": ({"category_id": 1.0}, {}, [BOX]),
    "id null": ({"id": None}, {}, [BOX]),
    "segmentation without end": ({"segmentation": [[1, float("nan")]] * 9}, {}, [BOX]),
}


def rewrite(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = root / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def row_of_b(content: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in content["annotations"] if row["image_id"] == 99)


@pytest.mark.slow
@pytest.mark.parametrize("case", ROWS)
def test_one_annotation_among_good_ones(
    case: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]
):
    changes, counts, boxes = ROWS[case]
    rewrite(written("coco"), lambda content: row_of_b(content).update(changes))
    assert_read(evaluated("coco"), counts, boxes)


def image(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["images"][1].update(changes)


DIFFERS = {"size differs from annotation": 1}
IMAGES: dict[str, tuple[Callable, dict[str, int], Sequence[tuple] | None]] = {
    "other size": (image(width=9999), DIFFERS, [BOX]),
    "negative size": (image(width=-32), DIFFERS, [BOX]),
    "size in words": (image(width="wide", height=[]), DIFFERS, [BOX]),
    "size null": (image(width=None, height=None), {}, [BOX]),
    "size as text": (image(width="32", height="64"), {}, [BOX]),
    "huge size": (image(width=HUGE), DIFFERS, [BOX]),
    "name missing on disk": (image(file_name="x.png"), {"image missing": 1}, None),
    "name of 300 letters": (image(file_name="x" * 300), {"image missing": 1}, None),
    "name null": (image(file_name=None), {"image missing": 1}, None),
    "name with a NUL": (image(file_name="b\0.png"), {"image missing": 1}, None),
    "name of a folder": (image(file_name="."), {"image missing": 1}, None),
    "name with a folder": (image(file_name="val/b.png"), {}, [BOX]),
    "name of Windows": (
        image(file_name="val\\b.png"), {"file name with quotes or backslashes": 1}, [BOX],
    ),
    "name in capitals": (image(file_name="B.PNG"), {}, [BOX]),
    "name of another format": (image(file_name="b.jpg"), {}, [BOX]),
    "listed twice": (
        lambda content: content["images"].append(dict(content["images"][1])),
        {"image listed twice": 1},
        [BOX],
    ),
    "unknown keys": (image(license=None, url={"a": []}), {}, [BOX]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", IMAGES)
def test_one_image_among_good_ones(
    case: str, written: Callable[[str], Path], evaluated: Callable[[str], Read]
):
    edit, counts, boxes = IMAGES[case]
    rewrite(written("coco"), edit)
    assert_read(evaluated("coco"), counts, boxes)


def removed(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def put(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({key: value})


CONTENTS: dict[str, tuple[Callable, str]] = {
    "no images": (removed("images"), "expected 'images' to be a list"),
    "no annotations": (removed("annotations"), "expected 'annotations' to be a list"),
    "no categories": (removed("categories"), "expected 'categories' to be a list"),
    "images as a mapping": (put("images", {"1": "a.jpg"}), "expected 'images' to be a list"),
    "empty images": (put("images", []), "no usable image"),
    "images of text": (put("images", ["a.jpg"]), "images[0]: expected an object"),
    "row of null": (put("annotations", [None]), "annotations[0]: expected an object"),
    "unknown category": (
        lambda content: row_of_b(content).update(category_id=77), "category_id: expected one of",
    ),
    "category 0 of none": (
        lambda content: row_of_b(content).update(category_id=None), "category_id: expected one of",
    ),
    "category of another class": (
        put("categories", [{"id": number, "name": "cat"} for number in range(6)]),
        "class 'cat' is not in the class list",
    ),
    "category without a name": (put("categories", [{"id": 1}]), "categories[0]: expected an obj"),
    "two names of an id": (
        lambda content: content["categories"].append({"id": 1, "name": "dog"}), "stands for",
    ),
    "two images of an id": (image(id=100), "the id 100 stands for"),
    "id as a list": (image(id=[99]), "images[1]: id: expected an integer or text, got a list"),
    "id not a number": (image(id=float("nan")), "images[1]: id: expected an integer or text"),
    "id as a fraction": (image(id=9.5), "images[1]: id: expected an integer or text"),
}  # fmt: skip
DATA = b'{"images": [], "annotations": [], "categories": []}'
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not readable as JSON"),
    "zeros": (bytes(1000), "not readable as JSON"),
    "cut off": (DATA[:-5], "not readable as JSON"),
    "comment": (b"// labels\n" + DATA, "not readable as JSON"),
    "comma at the end": (DATA[:-1] + b",}", "not readable as JSON"),
    "single quotes": (DATA.replace(b'"', b"'"), "not readable as JSON"),
    "two documents": (DATA + DATA, "not readable as JSON"),
    "compressed": (gzip.compress(DATA), "not readable as JSON"),
    "list": (b"[" + DATA + b"]", "expected 'images' to be a list"),
    "number": (b"1e400", "expected 'images' to be a list"),
    "deep lists": (b"[" * 10**6, "too many levels"),
    "deep objects": (b'{"images":' * 10**5, "too many levels"),
    "key twice": (b'{"images": [], "images": []}', "'images' is set twice"),
    "integer of 5000 digits": (b'{"images": ' + b"1" * 5000 + b"}", "not readable as JSON"),
    "half a character": (rb'{"images": [{"id": 1, "file_name": "\ud800"}]}', "'annotations'"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_contents_that_contradict_themselves_are_one_line(
    case: str,
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    edit, words = CONTENTS[case]
    rewrite(written("coco"), edit)
    assert words in refused("eval", *data_words("coco"))


@pytest.mark.parametrize("case", FILES)
def test_what_is_not_json_is_one_line(
    case: str,
    written: Callable[[str], Path],
    refused: Callable[..., str],
    data_words: Callable[..., list[object]],
):
    content, words = FILES[case]
    (written("coco") / "annotations/instances_val.json").write_bytes(content)
    message = refused("eval", *data_words("coco"))
    assert words in message and "instances_val.json" in message
