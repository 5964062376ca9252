"""Malformed annotations and lists: each counted by its rule, or refused in one line."""

import json
import os
import re
import shutil

import pytest

from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.loading import load_dataset

UNREADABLE = "annotation unreadable"


def load(format, root, **keys):
    config = DataConfig(format=format, root=str(root), **keys)
    return load_dataset(config, "train", (64, 64), progress=False)


def assert_counted(split, rule, reason):
    """The rule was applied once, and its example gives the reason."""
    assert split.report.counts == {rule: 1}
    [example] = split.report.examples[rule]
    assert re.search(reason, example), example


def assert_refused(format, root, message, **keys):
    with pytest.raises(UserError, match=message) as caught:
        load(format, root, **keys)
    assert "\n" not in str(caught.value)


# Pascal VOC

OBJECT = (
    "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object>"
)
BAD_XML = {
    "<annotation>": "not valid XML: no element found",
    "": "not valid XML",
    f"<annotation>{OBJECT}</annotation><annotation/>": "junk after document element",
    f"<data>{OBJECT}</data>": "expected <annotation>, got <data>",
    f"<annotation><objects>{OBJECT}</objects></annotation>": "every <object> directly in",
    f"<annotation><size/><size/>{OBJECT}</annotation>": "expected one <size>, got 2",
    '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>': "defines entities",
    '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation/>': "defines entities",
}
BAD_OBJECTS = {
    ("<xmin>1<", "<xmin>inf<"): "object 2: xmin: expected a number up to 1e9, got 'inf'",
    ("<ymax>9</ymax>", ""): "object 2: ymax: .* got nothing",
    ("<bndbox>", "<box>"): "mismatched tag",
    ("</bndbox>", "</bndbox><bndbox/>"): "object 2: expected one <bndbox>, got 2",
    ("<xmin>", "<xmin>1</xmin><xmin>"): "object 2: expected one <xmin>, got 2",
    ("cat", ""): "object 2: expected a class name, got none",
    ("cat", "ca<b/>t"): "object 2: name: expected text, got <b>",
    ("cat", "a&#10;b"): "object 2: class name 'a.nb'",
    ("cat", "c" * 10**5): "object 2: class name 'ccc",
    ("</name>", "</name><difficult>2</difficult>"): "object 2: difficult: expected 0 or 1, got '2'",
}


@pytest.mark.parametrize("content", BAD_XML)
def test_bad_xml_skips_the_image_and_says_why(content, write, tmp_path):
    root = write.voc(tmp_path)
    (root / "Annotations/a.xml").write_text(content)
    split = load("voc", root)
    assert [sample.path.name for sample in split.samples] == ["b.jpg", "c.png"]
    assert_counted(split, UNREADABLE, rf"a\.xml: .*{BAD_XML[content]}")


@pytest.mark.parametrize("change", BAD_OBJECTS)
def test_a_bad_object_skips_the_image_and_is_named(change, write, tmp_path):
    root = write.voc(tmp_path)
    text = f"<annotation>{OBJECT}{OBJECT.replace(*change)}</annotation>"
    (root / "Annotations/a.xml").write_text(text)
    assert_counted(load("voc", root), UNREADABLE, rf"a\.xml: .*{BAD_OBJECTS[change]}")


@pytest.mark.parametrize(
    "text",
    [
        f'<annotation xmlns="http://example.com">{OBJECT}</annotation>',
        f"<Annotation>{OBJECT.replace('object', 'Object')}</Annotation>",
        f'\n <?xml version="1.0"?><annotation>{OBJECT}</annotation>',
        f"<annotation>{OBJECT}{'<a>' * 10_000}{'</a>' * 10_000}</annotation>",
    ],
)
def test_unusual_xml_is_read(text, write, tmp_path):
    root = write.voc(tmp_path)
    (root / "Annotations/a.xml").write_text(text)
    split = load("voc", root)
    assert split.samples[0].boxes.tolist() == [[0, 0, 9, 9]]
    assert not split.report.counts


@pytest.mark.parametrize("width", ["-1", "1e9", "wide", "nan"])
def test_a_wrong_size_is_counted_and_an_unknown_one_is_not(width, write, tmp_path):
    root = write.voc(tmp_path)
    path = root / "Annotations/a.xml"
    text = path.read_text()
    path.write_text(text.replace("<width>60<", f"<width>{width}<"))
    assert load("voc", root).report.counts == {"size differs from annotation": 1}
    path.write_text(text.replace("<width>60<", "<width>0<"))
    assert not load("voc", root).report.counts


@pytest.mark.parametrize(
    ("encoding", "declared", "name"),
    [
        ("gbk", "GBK", "猫"),
        ("cp932", "Shift_JIS", "猫"),
        ("big5", "Big5", "貓"),
        ("euc-kr", "EUC-KR", "고양이"),
        ("latin-1", "ISO-8859-1", "vélo"),
        ("utf-16", "UTF-16", "猫"),
        ("gbk", "", "安全帽"),
        ("cp1252", "", "fenêtre"),
    ],
)
def test_xml_in_other_encodings_is_read_and_counted(encoding, declared, name, write, tmp_path):
    root = write.voc(tmp_path)
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    text = f"{head}<annotation>{OBJECT.replace('cat', name)}</annotation>"
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    split = load("voc", root)
    assert split.class_names == ("dog", name)
    assert_counted(split, "text not in UTF-8", r"a\.xml: read as ")


def test_undeclared_xml_files_are_read_in_one_encoding(write, tmp_path):
    """A single character in GBK may be valid UTF-8, and that of another file may be Korean."""
    root = write.voc(tmp_path)
    for file, name in (("a", "猫"), ("b", "安全帽")):
        text = f"<annotation>{OBJECT.replace('cat', name)}</annotation>"
        (root / f"Annotations/{file}.xml").write_bytes(text.encode("gbk"))
    (root / "Annotations/c.xml").write_bytes(b"\xff\x00\x81")
    split = load("voc", root)
    assert split.class_names == ("安全帽", "猫")
    assert split.report.counts == {"text not in UTF-8": 2, UNREADABLE: 1}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\r\nb\r\n", "a b"),
        (b"a\rb", "a b"),
        (b"\xef\xbb\xbfa\t1\nb\t-1\n", "a b"),
        ("a\nb\n".encode("utf-16"), "a b"),
        (b"\"a\"\n'b.jpg'\n.\\c.png", "a b c"),
        (b"a\n..\n/\n" + b"x" * 300 + b"\n" + b"y" * 300 + b"/z\nC:\\data\\b.jpg", "a"),
    ],
)
def test_lists_of_images(content, names, write, tmp_path):
    root = write.voc(tmp_path)
    (root / "ImageSets/Main/train.txt").write_bytes(content)
    split = load("voc", root, classes=list(write.names))
    assert [sample.path.stem for sample in split.samples] == names.split()
    if b"\\c" in content:
        assert split.report.counts == {"file name with quotes or backslashes": 3}
    if b"C:" in content:
        assert split.report.counts == {"image missing": 5}


def remove(folder):
    return lambda root: shutil.rmtree(root / folder)


def overwrite(pattern, content):
    return lambda root: [path.write_bytes(content) for path in root.glob(pattern)]


REAL_CAUSES = {
    "no images": (remove("JPEGImages"), r"expected the folder .*JPEGImages, found none"),
    "no annotations": (remove("Annotations"), r"expected the folder .*Annotations, found none"),
    "empty list": (overwrite("ImageSets/Main/*", b"\n"), r"train\.txt: is empty"),
    "other list": (overwrite("ImageSets/Main/*", b"x\ny"), "name no class: 2 x image missing"),
    "binary list": (overwrite("ImageSets/Main/*", b"\0\xff\x81"), r"train\.txt: not text"),
    "broken XML": (overwrite("Annotations/*", b"<"), "name no class: 3 x annotation unreadable"),
    "no objects": (overwrite("Annotations/*", b"<annotation/>"), "they have no objects"),
}


@pytest.mark.parametrize("case", REAL_CAUSES)
def test_the_real_cause_is_named(case, write, tmp_path):
    spoil, message = REAL_CAUSES[case]
    root = write.voc(tmp_path)
    spoil(root)
    assert_refused("voc", root, message)


# COCO


def edit_coco(root, edit):
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def change(entries, **values):
    """Set keys of the first entry of a list."""
    return lambda content: content[entries][0].update(values)


def as_text(name, key):
    """Turn a key of all entries of a list into text."""
    return lambda content: [row.update({key: str(row[key])}) for row in content[name]]


COUNTED = {
    "text": (change("annotations", bbox="1,2,3,4"), UNREADABLE, r"1: bbox: .* got '1,2,3,4'"),
    "3 values": (change("annotations", bbox=[1, 2, 3]), UNREADABLE, "1: bbox: .* got 3 values"),
    "nested": (change("annotations", bbox=[[1, 2, 3, 4]]), UNREADABLE, "got 1 values"),
    "nan": (change("annotations", bbox=[float("nan"), 2, 3, 4]), UNREADABLE, "got nan"),
    "true": (change("annotations", bbox=[True, 2, 3, 4]), UNREADABLE, "got True"),
    "huge": (change("annotations", bbox=[10**400, 2, 3, 4]), UNREADABLE, "got 1000"),
    "crowd": (change("annotations", iscrowd=2), UNREADABLE, "1: iscrowd: expected 0 or 1, got 2"),
    "quotes": (change("annotations", bbox=["3", 4, 17, 26]), "number in quotes", "annotation 1"),
    "no crowd": (change("annotations", iscrowd="0"), "number in quotes", "annotation 1"),
    "width": (change("images", width="wide"), "size differs from annotation", "image 100"),
    "list as id": (change("annotations", image_id=[100]), "annotation without an image", "1$"),
    "true as id": (change("annotations", image_id=True), "annotation without an image", "1$"),
    "null as id": (change("annotations", image_id=None), "annotation without an image", "1$"),
    "id as text": (change("annotations", image_id="100"), "identifier in quotes", "1: image_id"),
}


@pytest.mark.parametrize("case", COUNTED)
def test_coco_rows_are_counted(case, write, tmp_path):
    edit, rule, reason = COUNTED[case]
    root = write.coco(tmp_path)
    edit_coco(root, edit)
    split = load("coco", root)
    assert_counted(split, rule, reason)
    assert not any(sample.crowd.any() for sample in split.samples)


def test_coco_identifiers_of_unlike_types_meet(write, tmp_path):
    root = write.coco(tmp_path)
    expected = [sample.labels.tolist() for sample in load("coco", root).samples]
    edit_coco(root, as_text("images", "id"))
    edit_coco(root, as_text("annotations", "category_id"))
    split = load("coco", root)
    assert [sample.labels.tolist() for sample in split.samples] == expected
    assert split.class_names == ("dog", "cat", "owl")
    assert split.report.counts == {"identifier in quotes": 6}


def test_coco_image_listed_twice_and_categories_of_one_name(write, tmp_path):
    root = write.coco(tmp_path)
    edit_coco(root, lambda content: content["images"].append(dict(content["images"][0])))
    edit_coco(root, lambda content: content["categories"].append({"id": 5, "name": "cat"}))
    split = load("coco", root)
    assert split.class_names == ("dog", "cat", "owl")
    assert split.report.counts == {"image listed twice": 1, "category listed twice": 1}


@pytest.mark.parametrize(
    "name",
    [5, None, ["a.jpg"], "", "..", "/", "a\0.jpg", "x" * 300 + "/a.jpg", "a.jpg/b", "\ud800"],
)
def test_coco_file_names_that_are_none(name, write, tmp_path):
    root = write.coco(tmp_path)
    edit_coco(root, change("images", file_name=name))
    split = load("coco", root)
    assert [sample.path.name for sample in split.samples] == ["b.jpg", "c.png"]
    assert split.report.counts == {"image missing": 1}


REFUSED = {
    "image id": (lambda c: c["images"][1].update(id=100), r"images\[1\]: the id 100 .* 'a\.jpg'"),
    "image ids": (lambda c: c["images"][1].update(id="100"), "the id '100' stands for 'a.jpg'"),
    "category id": (lambda c: c["categories"][1].update(id=90), r"categories\[1\]: the id 90"),
    "no id": (change("images", id=None), r"images\[0\]: id: .* got nothing"),
    "category": (change("categories", name=5), r"categories\[0\]: .* got 5"),
    "null": (change("categories", name=None), r"categories\[0\]: expected a class name"),
    "lines": (change("categories", name="a\nb"), r"categories\[0\]: class name"),
    "unknown": (change("annotations", category_id=8), "annotation 1: category_id: .* 3, 7, 90, "),
    "row": (lambda c: c["annotations"].append(None), r"annotations\[3\]: expected an object"),
    "image": (lambda c: c["images"].append({}), r"images\[3\]: .* with file_name and id"),
    "no categories": (lambda c: c.update(categories=[], annotations=[]), "class list is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_coco_contradictions_are_refused(case, write, tmp_path):
    edit, message = REFUSED[case]
    root = write.coco(tmp_path)
    edit_coco(root, edit)
    assert_refused("coco", root, message)


BAD_JSON = {
    "[" * 200_000: "too many levels",
    '{"a":' * 100_000: "too many levels",
    '{"images": [], "images": []}': "the key 'images' is set twice",
    f'{{"images": {"1" * 5000}}}': "not readable as JSON",
    "[]": "expected 'images' to be a list",
    "null": "expected 'images' to be a list",
    "": "not readable as JSON",
    "\0": "not text",
}


@pytest.mark.parametrize("content", BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json_is_refused(content, write, tmp_path):
    root = write.coco(tmp_path)
    (root / "annotations/instances_train.json").write_text(content)
    assert_refused("coco", root, rf"instances_train\.json: .*{BAD_JSON[content]}")


def test_coco_in_utf_16_is_read(write, tmp_path):
    root = write.coco(tmp_path)
    path = root / "annotations/instances_train.json"
    path.write_bytes(path.read_text().encode("utf-16"))
    assert_counted(load("coco", root), "text not in UTF-8", "utf-16")


# YOLO


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


# all formats


FILES = {
    "voc": ("Annotations/a.xml", "ImageSets/Main/train.txt"),
    "coco": (None, "annotations/instances_train.json"),
    "yolo": ("labels/train/a.txt", "data.yaml"),
}
KINDS = {
    "FIFO": os.mkfifo,
    "folder": os.mkdir,
    "link leads nowhere": lambda path: path.symlink_to("nowhere"),
    "symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", FILES)
def test_what_is_not_a_file_is_counted_for_an_image_and_refused_for_a_dataset(
    format, kind, write, tmp_path
):
    root = getattr(write, format)(tmp_path)
    of_image, of_dataset = FILES[format]
    if of_image:
        (root / of_image).unlink()
        KINDS[kind](root / of_image)
        assert_counted(load(format, root), UNREADABLE, kind)
    (root / of_dataset).unlink()
    KINDS[kind](root / of_dataset)
    assert_refused(format, root, rf"{of_dataset}: .*{kind}")


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("keys", [{"root": "x" * 300}, {"root": "a.jpg"}, {"train": "b" * 300}])
def test_impossible_names_are_refused(format, keys, write, tmp_path):
    root = getattr(write, format)(tmp_path)
    assert_refused(format, message="data", **{"root": root, **keys})


@pytest.mark.parametrize("format", FILES)
def test_a_class_list_in_another_encoding_is_counted(format, write, tmp_path):
    root = getattr(write, format)(tmp_path)
    path = tmp_path / "classes.txt"
    path.write_bytes("cat\ndog\nowl\nchêne\n".encode("latin-1"))
    split = load(format, root, classes=str(path))
    assert split.class_names == ("cat", "dog", "owl", "chêne")
    assert_counted(split, "text not in UTF-8", r"classes\.txt: read as cp1252")


@pytest.mark.parametrize("format", FILES)
def test_an_outage_is_not_blamed_on_an_annotation(format, write, tmp_path, monkeypatch):
    root = getattr(write, format)(tmp_path)
    real = os.stat

    def out_of_reach(path, **options):
        if str(path).endswith(("a.xml", "a.txt", ".json")):
            raise OSError(5, "input/output error")
        return real(path, **options)

    monkeypatch.setattr("utils.core.files.RETRY_SECONDS", 0)
    monkeypatch.setattr("utils.core.files.os.stat", out_of_reach)
    assert_refused(format, root, "input/output error")
