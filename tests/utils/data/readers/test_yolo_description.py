"""Where a `data.yaml` says that the images are, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.layout import resolve
from utils.data.loading import load_dataset

FOREIGN = "path: /mnt/other/coco128\ntrain: images/train\nval: images/val\n"


def write_sets(write: SimpleNamespace, folder: Path, *names: str) -> None:
    for name in names:
        for split in ("train", "val"):
            item = write.Item(f"{name}-{split}.jpg", (30, 30), [("cat", 1, 1, 9, 9)])
            write.yolo(folder / name, [item], split)
        (folder / name / "data.yaml").unlink()


def read_names(root: Path, split: str) -> list[str]:
    dataset = load_dataset(DataConfig(root=str(root)), split, (64, 64), progress=False)
    return [sample.path.name for sample in dataset.samples]


def describe(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(f"names: [cat]\n{text}")
    return path


def test_the_end_of_a_path_of_another_machine_tells_two_datasets_apart(write, tmp_path):
    write_sets(write, tmp_path, "coco128", "cars")
    root = describe(tmp_path, FOREIGN)
    assert read_names(root, "train") == ["coco128-train.jpg"]
    assert read_names(root, "val") == ["coco128-val.jpg"]


@pytest.mark.parametrize(
    ("split", "text", "found"),
    [
        ("train", FOREIGN, "/mnt/other/coco128/images/train"),
        ("train", "train: c/train\nval: b/images/val", "c/train"),
        ("train", "train: [a/images/train, c/train]\nval: b/images/val", "c/train"),
        ("train", "train: [a/images/train, 5]\nval: b/images/val", "5"),
        ("val", "train: a/images/train\nval: [b/images/val, c/val]", "c/val"),
    ],
)
def test_what_is_named_but_absent_is_refused(split, text, found, write, tmp_path):
    write_sets(write, tmp_path, "a", "b")
    root = describe(tmp_path, text)
    message = rf"data\.yaml: {split}: expected .* but {tmp_path / found} does not exist, nor"
    with pytest.raises(UserError, match=message) as caught:
        read_names(root, split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_the_keys_of_a_validation_split(key, write, tmp_path):
    write_sets(write, tmp_path, "a")
    root = describe(tmp_path, f"train: a/images/train\n{key}: a/images/val\n")
    assert read_names(root, "val") == ["a-val.jpg"]


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("train: a/images/train\nvla: a/images/val\n", "vla", "val"),
        ("train: a/images/train\nvals: [a/images/val]\n", "vals", "val"),
        ("trian: a/images/train\nval: a/images/val\n", "trian", "train"),
    ],
)
def test_a_misspelled_split_is_refused(text, key, meant, write, tmp_path):
    write_sets(write, tmp_path, "a")
    root = describe(tmp_path, text)
    with pytest.raises(UserError, match=rf"data\.yaml: {key}: unknown key; did you mean '{meant}'"):
        resolve(DataConfig(root=str(root)))


def test_other_keys_that_look_like_splits_are_left_alone(write, tmp_path):
    write_sets(write, tmp_path, "a")
    text = "train: a/images/train\nval: a/images/val\ntrainval: a/images\ntests: nowhere\n"
    data, _ = resolve(DataConfig(root=str(describe(tmp_path, text))))
    assert (data.train, data.val) == ("train", "val")


def test_a_split_that_the_user_names_may_be_close_to_a_usual_one(write, tmp_path):
    write_sets(write, tmp_path, "a")
    root = describe(tmp_path, "train: a/images/train\nvalset: a/images/val\n")
    data, _ = resolve(DataConfig(root=str(root), val="valset"))
    assert (data.train, data.val) == ("train", "valset")


def test_absent_splits_beside_that_for_training_count_as_none(write, tmp_path):
    write_sets(write, tmp_path, "a")
    root = describe(tmp_path, "train: a/images/train\nval: valid/images\ntest: test/images\n")
    data, notes = resolve(DataConfig(root=str(root)))
    assert data.train == data.val == "train"
    assert notes[-1].startswith("validation: 20% of split 'train'")
