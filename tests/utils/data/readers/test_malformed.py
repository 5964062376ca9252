"""What every format meets: no files, impossible names, other encodings, outages."""

import os

import pytest

from tests.utils.data.read_results import UNREADABLE, assert_counted, assert_refused, load

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

    monkeypatch.setattr("utils.core.inputs.RETRY_SECONDS", 0)
    monkeypatch.setattr("utils.core.inputs.os.stat", out_of_reach)
    assert_refused(format, root, "input/output error")
