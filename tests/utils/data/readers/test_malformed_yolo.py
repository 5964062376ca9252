"""Malformed labels, class lists and lists of images of YOLO: counted, or refused in one line."""

import shutil

import pytest

from tests.utils.data.read_results import UNREADABLE, assert_counted, assert_refused, load


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 .5 .5 .1", "got 3 numbers"),
        ("0 .5 .5 .1 .1 .9", "got 5 numbers"),
        ("0 inf .5 .1 .1", "got 'inf'"),
        ("0 1_0 .5 .1 .1", "got '1_0'"),
        ("0 0x1 .5 .1 .1", "got '0x1'"),
        ("0 １ .5 .1 .1", "got '１'"),
        ("0,.5,.5,.1,.1", "class: .* got '0,.5"),
        ("# cats", "class: .* got '#'"),
        ("1e400 .5 .5 .1 .1", "class: .* got '1e400'"),
        ("0 30 30 10 10", "expected fractions of the image's size, got 30"),
    ],
)
def test_yolo_lines_are_named(line, reason, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "labels/train/a.txt").write_text(f"1 .5 .5 .1 .1\r\n\r\n{line}\r\n", "utf-8")
    assert_counted(load("yolo", root), UNREADABLE, rf"a\.txt:3: .*{reason}")


@pytest.mark.parametrize("word", ["3", "-1", "1.5"])
def test_yolo_classes_beyond_the_list_are_refused(word, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "labels/train/a.txt").write_text(f"{word} .5 .5 .1 .1")
    assert_refused("yolo", root, rf"a\.txt:1: class {word} .* expected 0 to 2")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [yes, no, on]", "yes no on"),
        ("names: [0, 1, 2]", "0 1 2"),
        ("names: {'0': a, 1: b, '2': c}\nnc: '3'", "a b c"),
    ],
)
def test_yolo_names(text, names, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "data.yaml").write_text(text)
    assert load("yolo", root).class_names == tuple(names.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, true, c]", "expected a class name, got True: write it in quotes"),
        ("names: [a, 1.5, c]", "got 1.5"),
        ("names: [a, '', c]", "expected a class name, got none"),
        ("names: {0: a, 2: c}", "map from 0, 1, 2"),
        ("names: {0: a, '0': c}", "the key 0 is set twice"),
        ("names: {'': a}", "map from 0, 1, 2"),
        ("names: a, b, c", "expected a list"),
        ("nc: 3", "expected a list"),
        ("[a, b, c]", "expected a list"),
        ("names: [a, b, c]\nnc: 4", "nc: expected 3 as in names, got 4"),
        ("names: !!python/name:os.system x", "not valid YAML"),
        ("names: &a [*a]", "not valid YAML"),
    ],
)
def test_yolo_names_that_are_refused(text, message, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "data.yaml").write_text(text)
    assert_refused("yolo", root, rf"data\.yaml.*{message}")


@pytest.mark.parametrize(
    ("shape", "keypoints"), [("[2, 3]", ".1 .9 2 .6 .6 0"), ("[1, 2]", ".1 .9")]
)
def test_yolo_keypoints_are_left_out(shape, keypoints, write, tmp_path):
    root = write.yolo(tmp_path, [write.Item("a.jpg", (40, 40))])
    (root / "data.yaml").write_text(f"names: [cat]\nkpt_shape: {shape}")
    (root / "labels/train/a.txt").write_text(f"0 .5 .5 .1 .2 {keypoints}")
    split = load("yolo", root)
    assert_counted(split, "keypoints", r"a\.txt:1")
    assert split.samples[0].boxes.round(3).tolist() == [[18, 16, 22, 24]]


@pytest.mark.parametrize("numbers", [4, 6, 9, 11])
def test_yolo_lines_without_their_keypoints_are_named(numbers, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "data.yaml").write_text("names: [cat, dog, owl]\nkpt_shape: [2, 3]")
    for name in "ab":
        (root / f"labels/train/{name}.txt").write_text("1 .5 .5 .1 .1" + " .4 .4 2" * 2)
    (root / "labels/train/c.txt").write_text("0" + " .5" * numbers)
    split = load("yolo", root)
    assert split.report.counts == {UNREADABLE: 1, "keypoints": 2}
    assert f"got {numbers}" in split.report.examples[UNREADABLE][0]


@pytest.mark.parametrize("shape", ["17", "[17]", "[0, 3]", "[2, 4]", "[a, 3]"])
def test_yolo_keypoints_of_no_shape_are_refused(shape, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "data.yaml").write_text(f"names: [cat, dog, owl]\nkpt_shape: {shape}")
    assert_refused("yolo", root, r"data\.yaml: kpt_shape: expected")


@pytest.mark.parametrize("name", ["data.yaml", "classes.txt", "obj.names"])
def test_yolo_class_lists_in_other_encodings(name, write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "data.yaml").unlink()
    text = "names: [猫咪, 小狗, 猫头鹰]" if name == "data.yaml" else "猫咪\n小狗\n猫头鹰\n"
    (root / name).write_bytes(text.encode("gbk"))
    split = load("yolo", root)
    assert split.class_names == ("猫咪", "小狗", "猫头鹰")
    assert_counted(split, "text not in UTF-8", f"{name}: read as gb18030")


def test_yolo_list_with_paths_of_windows(write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "list.txt").write_text('images\\train\\a.jpg\n".\\images\\train\\c.png"\n')
    split = load("yolo", root, train="list")
    assert [sample.path.name for sample in split.samples] == ["a.jpg", "c.png"]
    assert split.report.counts == {"file name with quotes or backslashes": 2}


def test_yolo_images_without_any_label_are_refused(write, tmp_path):
    root = write.yolo(tmp_path)
    shutil.rmtree(root / "labels")
    assert_refused("yolo", root, r"none of the 3 images .* has a label file.*labels/train/a\.txt")
