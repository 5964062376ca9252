"""Exports of annotation tools are read unedited, and all give the same data."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import exports
import numpy as np
import pytest
from dataset_files import NAMES

from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config, DataConfig
from utils.data.dataset import DetectionDataset
from utils.data.layout import recognize, resolve
from utils.data.loading import load_dataset
from utils.engine.datasets import open_datasets
from utils.engine.experiment import train

SIZE = (64, 64)
Export = Callable[[Path], None]


def load(root: Path, split: str, **keys: object) -> DetectionDataset:
    data = DataConfig(root=str(root), **keys)  # type: ignore[arg-type]
    return load_dataset(data, split, SIZE, progress=False)


def by_stem(dataset: DetectionDataset) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Canvas, boxes and labels of each image; objects sorted."""
    contents = {}
    for index, sample in enumerate(dataset.samples):
        order = np.lexsort((*dataset.boxes[index].T, dataset.labels[index]))
        boxes, labels = dataset.boxes[index][order], dataset.labels[index][order]
        contents[sample.path.stem] = dataset.canvases([index])[0], boxes, labels
    return contents


def assert_same(first: DetectionDataset, second: DetectionDataset) -> None:
    assert first.class_names == second.class_names == NAMES
    ours, theirs = by_stem(first), by_stem(second)
    assert ours.keys() == theirs.keys()
    for stem, (canvas, boxes, labels) in ours.items():
        np.testing.assert_array_equal(canvas, theirs[stem][0])
        np.testing.assert_allclose(boxes, theirs[stem][1], atol=1e-4)
        np.testing.assert_array_equal(labels, theirs[stem][2])


@pytest.mark.parametrize("export", exports.WITH_SPLITS)
def test_exports_with_splits_give_the_same_data(export: Export, tmp_path: Path):
    export(tmp_path / "export")
    exports.roboflow_voc(tmp_path / "reference")
    for split, count in (("train", 3), ("val", 1)):
        dataset = load(tmp_path / "export", split)
        assert len(dataset) == count
        assert_same(dataset, load(tmp_path / "reference", split))


@pytest.mark.parametrize("export", exports.WITHOUT_SPLITS)
def test_exports_without_splits_are_divided_alike(export: Export, tmp_path: Path):
    export(tmp_path / "export")
    exports.labelimg_voc(tmp_path / "reference")
    seen: set[str] = set()
    for split in ("train", "val"):
        dataset = load(tmp_path / "export", split, val_share=0.25)
        assert_same(dataset, load(tmp_path / "reference", split, val_share=0.25))
        stems = {sample.path.stem for sample in dataset.samples}
        assert stems and not stems & seen
        seen |= stems
    assert seen == {"a", "b", "c", "d"}


def test_what_was_recognized_is_told(tmp_path: Path):
    exports.labelimg_yolo(tmp_path)
    dataset = load(tmp_path, "train")
    assert dataset.notices == [
        f"{tmp_path}: YOLO labels (data.format=yolo)",
        "validation: 20% of all images (data.val_share=0.2, data.split_seed=0)",
    ]


def test_a_description_may_be_the_root(tmp_path: Path):
    exports.roboflow_yolo(tmp_path / "a")
    exports.ultralytics(tmp_path / "b")
    for split in ("train", "val"):
        first = load(tmp_path / "a" / "data.yaml", split)
        assert_same(first, load(tmp_path / "b" / "animals.yaml", split))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("train2017 val2017", ("train2017", "val2017", None)),
        ("train2017 val2017 test2017", ("train2017", "val2017", None)),
        ("train2017 Valid", ("train2017", "Valid", None)),
        ("train train2017 val", ("train", "val", None)),
        ("train2017", ("train2017", "train2017", 0.2)),
        ("train2014 train2017 val", ("train", "val", None)),  # refused when it is read
        ("train val2014 val2017 test", ("train", "val", None)),
    ],
)
def test_the_splits_of_a_year_are_found(names, expected, write, tmp_path: Path):
    for name in names.split():
        write.coco(tmp_path, split=name)
    data, _ = resolve(DataConfig(root=str(tmp_path)))
    assert (data.train, data.val, data.val_share) == expected


@pytest.mark.parametrize(
    ("folders", "test", "expected"),
    [
        ("train test", None, ("train", "test", None)),
        ("train test", "test", ("train", "train", 0.2)),
        ("Train Test", "test", ("Train", "Train", 0.2)),
        ("train valid test", "test", ("train", "valid", None)),
    ],
)
def test_the_test_split_is_not_used_for_validation(folders, test, expected, tmp_path: Path):
    for folder in folders.split():
        exports.save(tmp_path / folder, exports.ALL_ITEMS)
        exports.save_texts(tmp_path / folder, exports.ALL_ITEMS, ".xml", exports.xml)
    data, _ = resolve(DataConfig(root=str(tmp_path), test=test))
    assert (data.train, data.val, data.val_share) == expected


def test_another_seed_divides_differently_and_duplicates_stay_together(write, tmp_path: Path):
    items = [
        write.Item(f"{index}.png", (20, 20 + index // 2), [("cat", 1, 1, 9, 9)])
        for index in range(20)
    ]
    for index, item in enumerate(items):  # 2k and 2k+1 are the same file
        write.make_image(item.size, seed=index // 2).save(tmp_path / item.name)
        (tmp_path / f"{index}.xml").write_text(exports.xml(item))
    divisions = set()
    for seed in range(4):
        val = load(tmp_path, "val", val_share=0.3, split_seed=seed)
        numbers = sorted(int(sample.path.stem) for sample in val.samples)
        assert len(numbers) == 6
        assert all(number ^ 1 in numbers for number in numbers)
        divisions.add(tuple(numbers))
    assert len(divisions) > 1


def test_a_share_divides_the_training_split_only(tmp_path: Path):
    exports.roboflow_coco(tmp_path)
    parts = [load(tmp_path, split, val_share=0.4) for split in ("train", "val")]
    stems = [{sample.path.stem for sample in part.samples} for part in parts]
    assert stems[0] | stems[1] == {"a", "b", "c"} and not stems[0] & stems[1]


def test_nothing_recognizable_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="found no images; expected a dataset in"):
        recognize(tmp_path)
    exports.save(tmp_path, exports.ALL_ITEMS)
    (tmp_path / "notes.json").write_text(json.dumps({"images": 1}))
    with pytest.raises(UserError, match="found 4 images without annotations"):
        recognize(tmp_path)
    with pytest.raises(UserError, match=r"data\.root: expected a folder"):
        recognize(tmp_path / "a.jpg")


UNRELATED = {
    "list.yaml": b"- hosts: all",
    "tag.yaml": b"a: !vault 1",
    "features.data": bytes(range(256)),
    "annotations/meta.json": b'{"images": 3}',
}


@pytest.mark.parametrize("export", [exports.label_studio_coco, exports.labelimg_voc])
@pytest.mark.parametrize("name", UNRELATED)
def test_an_unrelated_file_decides_nothing(name: str, export: Export, tmp_path: Path):
    export(tmp_path)
    expected = recognize(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / name).write_bytes(UNRELATED[name])
    data, _ = resolve(DataConfig(root=str(tmp_path)))
    assert data.format == expected
    assert len(load(tmp_path, data.train)) == 4


@pytest.mark.parametrize("name", ["train.json", "instances_default.json"])
def test_a_damaged_coco_file_of_a_usual_name_is_not_passed_over(name: str, tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text('{"images": [')
    with pytest.raises(UserError, match=f"{name}: not readable as JSON"):
        load(tmp_path, "train")


def test_annotations_that_may_be_meant_twice_are_refused(tmp_path: Path):
    exports.label_studio_voc(tmp_path)
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup/a.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match=r"a\.jpg may belong to .*a\.xml or .*a\.xml"):
        load(tmp_path, "train")


def test_a_single_coco_file_is_divided(tmp_path: Path):
    exports.label_studio_coco(tmp_path)
    parts = [load(tmp_path / "result.json", split, val_share=0.25) for split in ("train", "val")]
    stems = [{sample.path.stem for sample in part.samples} for part in parts]
    assert [len(part) for part in parts] == [3, 1] and not stems[0] & stems[1]
    assert len(load(tmp_path / "result.json", "val")) == 1  # 20% where no share is set


def test_paths_of_another_machine_are_found_by_their_ends(tmp_path: Path):
    exports.label_studio_yolo(tmp_path)
    lines = [rf"C:\data\animals\images\{item.name}" for item in exports.ALL_ITEMS]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    dataset = load(tmp_path, "train", format="yolo")
    assert len(dataset) == 4
    assert dataset.report.counts["image found by the end of its path"] == 4


@pytest.mark.parametrize(
    "prefix", ["/data/animals/images/", "C:\\data\\images\\", "\\\\nas\\images\\"]
)
def test_absolute_names_of_coco_are_found_by_their_ends(prefix: str, tmp_path: Path):
    exports.label_studio_coco(tmp_path)
    (tmp_path / "result.json").write_text(exports.coco_text(exports.ALL_ITEMS, prefix=prefix))
    exports.save(tmp_path / "images/other/images", exports.ALL_ITEMS[:1])
    dataset = load(tmp_path, "result", format="coco")
    assert {sample.path.parent for sample in dataset.samples} == {tmp_path / "images"}
    assert dataset.report.counts["image found by the end of its path"] == 4


def test_a_relative_name_of_coco_means_no_other_folder(tmp_path: Path):
    exports.label_studio_coco(tmp_path)
    (tmp_path / "result.json").write_text(exports.coco_text(exports.ALL_ITEMS, prefix="camera/"))
    with pytest.raises(UserError, match=r"no usable image .* 4 x image missing"):
        load(tmp_path, "result", format="coco")


@pytest.mark.parametrize("folder", ["train", "images/train", "images", "annotations"])
def test_a_coco_file_among_annotations_may_be_the_root(folder: str, write, tmp_path: Path):
    root = write.coco(tmp_path / "data")
    (root / "train").rename(tmp_path / "images of the split")
    (root / folder).parent.mkdir(exist_ok=True)
    for image in (tmp_path / "images of the split").iterdir():
        (root / folder).mkdir(exist_ok=True)
        image.rename(root / folder / image.name)
    assert len(load(root / "annotations/instances_train.json", "all")) == 3


@pytest.mark.parametrize("export", [exports.roboflow_voc, exports.roboflow_darknet])
def test_a_split_may_be_a_link(export: Export, tmp_path: Path):
    export(tmp_path / "data")
    (tmp_path / "data/train").rename(tmp_path / "elsewhere")
    (tmp_path / "data/train").symlink_to("../elsewhere")
    (tmp_path / "data/all").symlink_to("valid")  # its images are there
    assert [len(load(tmp_path / "data", split)) for split in ("train", "val")] == [3, 1]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may enter /locked, nor a folder lost+found."""

    def refuse_some(real: Callable) -> Callable:
        def refuse(path: object, *arguments: object, **options: object) -> object:
            inside = str(path).startswith("/locked/") or "lost+found/" in str(path)
            if inside or (real is os.scandir and str(path).endswith("lost+found")):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return refuse

    for name in ("stat", "scandir"):
        monkeypatch.setattr(os, name, refuse_some(getattr(os, name)))


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("source", ["data.yaml", "train.txt", "result.json"])
def test_a_path_of_another_machine_that_is_locked_here_is_found_by_its_end(
    source: str, tmp_path: Path
):
    items = exports.ALL_ITEMS
    if source == "result.json":
        exports.label_studio_coco(tmp_path)
        (tmp_path / source).write_text(exports.coco_text(items, prefix="/locked/data/images/"))
    else:
        exports.label_studio_yolo(tmp_path)
        lines = "".join(f"/locked/data/images/{item.name}\n" for item in items)
        (tmp_path / "train.txt").write_text(lines)
        train = "images" if source == "data.yaml" else "train.txt"
        content = {"names": list(NAMES), "train": f"/locked/data/{train}"}
        (tmp_path / "data.yaml").write_text(json.dumps(content))
    assert len(load(tmp_path, "train", val_share=0.25)) == 3


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("export", [exports.roboflow_voc, exports.roboflow_darknet])
def test_a_file_systems_own_folder_is_not_read(export: Export, tmp_path: Path):
    export(tmp_path)
    (tmp_path / "lost+found").mkdir()
    assert len(load(tmp_path, "train")) == 3


@pytest.mark.usefixtures("locked")
def test_a_root_that_is_locked_is_called_so():
    with pytest.raises(UserError, match=r"^/locked/data: permission denied$"):
        load(Path("/locked/data"), "train")


def test_without_a_root_images_are_drawn():
    dataset = load_dataset(DataConfig(shapes_train=2), "train", SIZE, progress=False)
    assert dataset.samples[0].draw is not None


def test_a_run_says_how_its_images_were_divided(
    tiny: Callable[..., Config], write: SimpleNamespace
):
    config = tiny("train.epochs=1", "data.format=auto", "data.root=data", "train.batch_size=2")
    items = [write.Item(f"{index}.png", (30, 30), [("cat", 1, 1, 19, 19)]) for index in range(5)]
    exports.SEEDS.update({item.name: 50 + seed for seed, item in enumerate(items)})
    exports.save(Path("data"), items)
    exports.save_texts(Path("data"), items, ".xml", exports.xml)
    run = train(config).run
    lists = [(run / name).read_text().splitlines() for name in ("train.txt", "val.txt")]
    assert [len(lines) for lines in lists] == [4, 1]
    assert {Path(line).name for line in lists[0] + lists[1]} == {item.name for item in items}
    assert all(Path(line).is_file() for line in lists[0])


def test_what_was_recognized_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    exports.labelimg_yolo(tmp_path)
    open_datasets(load_config("my_data.yaml", {"data.root": str(tmp_path), "input_size": 32}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: YOLO labels (data.format=yolo)"
    assert sum(line.startswith(str(tmp_path)) for line in lines) == 1


@pytest.mark.parametrize("objects", [True, False])
def test_a_training_split_without_objects_is_told(objects: bool, tmp_path: Path, capsys):
    exports.labelimg_yolo(tmp_path)
    if not objects:
        for item in exports.ALL_ITEMS:
            (tmp_path / f"{exports.stem(item)}.txt").write_text("")
    open_datasets(load_config("my_data.yaml", {"data.root": str(tmp_path), "input_size": 32}))
    told = "note: nothing to learn: no object in 3 training images\n" in capsys.readouterr().out
    assert told != objects
