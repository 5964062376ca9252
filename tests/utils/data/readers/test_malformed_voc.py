"""Malformed XML and lists of Pascal VOC: each counted by its rule, or refused in one line."""

import shutil

import pytest

from tests.utils.data.read_results import UNREADABLE, assert_counted, assert_refused, load

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
