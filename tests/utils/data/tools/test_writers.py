"""What is written is read back the same; what a format cannot hold is told or refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.data.read_results import read_back
from utils.core.errors import UserError
from utils.data.sample import Sample
from utils.data.tools.selection import Selection
from utils.data.tools.writers import FORMATS, WrittenDataset, write_dataset

NAMES = ("kitty cat", "7", "a/b", "Käfer 甲虫", "yes", "x: y #z, {w}")


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int, least: float) -> list[float]:
    """A box inside the image, at least `least` wide and high, in 64ths of a pixel."""
    x1 = draw(st.integers(0, int((width - least) * 64))) / 64
    y1 = draw(st.integers(0, int((height - least) * 64))) / 64
    x2 = draw(st.integers(int((x1 + least) * 64), width * 64)) / 64
    y2 = draw(st.integers(int((y1 + least) * 64), height * 64)) / 64
    return [x1, y1, x2, y2]


STEMS = st.sampled_from(
    ["a", "A", "b 1", "ü", "甲", "x.jpg", ".h", "q'uote", 'd"q', "new\nline", "b\\s", " s "]
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """A drawn image in any folder, with any objects."""
    width, height = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    items = draw(st.lists(boxes(width, height, 1.0), max_size=4, unique_by=tuple))
    count = len(items)
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    crowd = np.array(draw(flags), np.bool_)
    labels = st.lists(st.integers(0, len(NAMES) - 1), min_size=count, max_size=count)
    color = draw(st.integers(0, 255))
    return Sample(
        path=Path(draw(st.sampled_from(["", "one", "two/deep"]))) / f"{draw(STEMS)}.png",
        width=width,
        height=height,
        boxes=np.array(items, np.float32).reshape(-1, 4),
        labels=np.array(draw(labels), np.int64),
        difficult=np.array(draw(flags), np.bool_) & ~crowd,
        crowd=crowd,
        draw=lambda: np.full((height, width, 3), color, np.uint8),
    )


def objects(sample: Sample, names: Sequence[str], file_format: str) -> list[tuple]:
    """What the format can hold of the objects, sorted."""
    rows = []
    for box, label, difficult, crowd in zip(
        sample.boxes.tolist(), sample.labels, sample.difficult, sample.crowd, strict=True
    ):
        if file_format != "coco" and crowd:
            continue
        flag = bool(crowd if file_format == "coco" else difficult and file_format == "voc")
        rows.append((names[label], flag, *(round(value, 2) for value in box)))
    return sorted(rows)


@pytest.mark.parametrize("file_format", FORMATS)
@given(
    train=st.lists(samples(), min_size=1, max_size=5),
    val=st.lists(samples(), min_size=1, max_size=3),
)
@settings(max_examples=25)
def test_what_is_written_is_read_back(
    file_format: str,
    train: list[Sample],
    val: list[Sample],
    tmp_path_factory: pytest.TempPathFactory,
):
    # every class is in the training split: Pascal VOC has no other list of them
    full = np.array([[0, 0, 9, 9]] * len(NAMES), np.float32) + np.arange(len(NAMES))[:, None]
    train = [
        Sample(
            Path("all.png"),
            60,
            60,
            full,
            np.arange(len(NAMES)),
            np.zeros(len(NAMES), np.bool_),
            np.zeros(len(NAMES), np.bool_),
            draw=lambda: np.zeros((60, 60, 3), np.uint8),
        ),
        *train,
    ]
    out = tmp_path_factory.mktemp("out") / "new"
    selection = Selection(NAMES, {"train": train, "val": val})
    written = write_dataset(selection, out, file_format, progress=False)
    assert written.counts == {"train": len(train), "val": len(val)}
    found = read_back(out, file_format)
    assert set(found.class_names) == set(NAMES)
    if file_format != "voc":
        assert found.class_names == NAMES
    for split, originals in (("train", train), ("val", val)):
        contents = found.splits[split]
        assert not {rule for rule in contents.report.counts if rule not in ALLOWED}
        ours = [(s.width, s.height, objects(s, NAMES, file_format)) for s in originals]
        theirs = [
            (s.width, s.height, objects(s, found.class_names, file_format))
            for s in contents.samples
        ]
        for first, second in zip(sorted(ours), sorted(theirs), strict=True):
            assert first[:2] == second[:2] and len(first[2]) == len(second[2])
            for own, other in zip(first[2], second[2], strict=True):
                assert own[:2] == other[:2]
                np.testing.assert_allclose(own[2:], other[2:], atol=0.011)
    crowd, difficult = (
        sum(int(getattr(s, key).sum()) for s in [*train, *val]) for key in ("crowd", "difficult")
    )
    assert written.losses["crowd region left out"] == (crowd if file_format != "coco" else 0)
    assert written.losses["flag 'difficult' lost"] == (difficult if file_format != "voc" else 0)


ALLOWED = {"crowd region", "image identical to another"}


def test_a_box_below_a_pixel_is_told(tmp_path: Path):
    box = np.array([[3.25, 4, 3.75, 9]], np.float32)
    sample = Sample(
        Path("a.png"),
        20,
        20,
        box,
        np.zeros(1, np.int64),
        np.zeros(1, np.bool_),
        np.zeros(1, np.bool_),
        draw=lambda: np.zeros((20, 20, 3), np.uint8),
    )
    for file_format, count in (("voc", 1), ("yolo", 0), ("coco", 0)):
        selection = Selection(("a",), {"train": [sample]})
        written = write_dataset(selection, tmp_path / file_format, file_format, progress=False)
        assert written.losses["box widened to a pixel"] == count
        [found] = read_back(tmp_path / file_format, file_format).samples()
        wanted = [3.25, 4, 4.25, 9] if count else box[0]
        np.testing.assert_allclose(found.boxes[0], wanted, atol=1e-4)


def test_losses_are_told(tmp_path: Path):
    written = WrittenDataset(tmp_path, {"train": 2})
    written.losses.update({"crowd region left out": 2, "flag 'difficult' lost": 0})
    assert written.lines() == [
        "  2 x crowd region left out",
        "  there is no split 'val': `split --of train` makes one",
        f"written: {tmp_path} (train 2 images)",
    ]


def test_voc_refuses_class_names_that_it_cannot_hold(write: SimpleNamespace, tmp_path: Path):
    root = write.yolo(tmp_path / "data")
    samples = read_back(root, "yolo").samples()
    selection = Selection(("cat ", "dog", "owl"), {"train": [replace(samples[0])]})
    with pytest.raises(UserError, match="class 'cat ': Pascal VOC drops blanks"):
        write_dataset(selection, tmp_path / "new", "voc", progress=False)
