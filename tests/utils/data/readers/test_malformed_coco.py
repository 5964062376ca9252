"""Malformed JSON of COCO: each row counted by its rule, or the file refused in one line."""

import json

import pytest

from tests.utils.data.read_results import UNREADABLE, assert_counted, assert_refused, load


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


def test_coco_image_with_two_ids_has_the_objects_of_both(write, tmp_path):
    root = write.coco(tmp_path)
    second = {"id": 5, "file_name": "a.jpg", "width": 60, "height": 40}
    edit_coco(root, lambda content: content["images"].append(second))
    edit_coco(root, change("annotations", image_id=5))
    split = load("coco", root)
    assert [len(sample.boxes) for sample in split.samples] == [2, 1, 0]
    assert_counted(split, "image listed twice", r"images\[3\]")
    edit_coco(root, lambda content: content["images"][3].update(width=61))
    split = load("coco", root)
    assert split.report.counts == {"image listed twice": 1, "size differs from annotation": 1}
    edit_coco(root, change("annotations", bbox=None))
    assert [sample.path.name for sample in load("coco", root).samples] == ["b.jpg", "c.png"]


@pytest.mark.parametrize(
    ("group", "of", "names"),
    [
        ("fish", "fish", ["dog", "cat", "fish", "owl"]),  # a class without objects, its own group
        ("fish", "tuna", ["dog", "cat", "tuna", "owl"]),  # as Roboflow's first category
        ("dog", "pug", ["dog", "cat", "pug", "owl"]),  # a group with objects
        (["dog"], "pug", ["dog", "cat", "pug", "owl"]),
    ],
)
@pytest.mark.parametrize("kind", [int, float])
def test_coco_categories_that_only_group_others_are_no_classes(
    kind, group, of, names, write, tmp_path
):
    root = write.coco(tmp_path)
    more = [{"id": 9, "name": of, "supercategory": group}]
    if group != of and group == "fish":
        more.append({"id": 10, "name": group})
    edit_coco(root, lambda content: content["categories"].extend(more))
    edit_coco(
        root,
        lambda content: [
            row.update(category_id=kind(row["category_id"])) for row in content["annotations"]
        ],
    )
    assert list(load("coco", root).class_names) == names


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
