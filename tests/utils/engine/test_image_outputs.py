"""What `--save` writes: each format against an independent reader of it."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nets.inference.detections import Detections
from nets.inference.tiling import make_tiling
from nets.loading import load_model
from utils.core.images import read_image, write_image
from utils.core.schema import DataConfig, PredictConfig
from utils.data.loading import load_dataset
from utils.engine.evaluation import evaluate_weights
from utils.engine.experiment import Result
from utils.engine.image_outputs import class_folders
from utils.engine.image_prediction import predict_images
from utils.engine.outputs import Summary
from utils.engine.prediction import PredictOptions, predict
from utils.engine.sources import image_folder

NAMES = ("cat", "a/b: ..")
ALL = ("image", "txt", "coco", "csv", "crops", "json")


class Stub:
    """Detects the gray value of an image, in percent, as the width of a cat and a half of b."""

    names = NAMES
    config = SimpleNamespace(predict=PredictConfig(), data=DataConfig())

    def __call__(self, image: np.ndarray, /) -> Detections:
        height, width = image.shape[:2]
        share = image[0, 0, 0] / 100
        boxes = np.array([[0, 0, share * width, height], [0, 0, share * width / 2, height / 3]])
        boxes = boxes.astype(np.float32)[: 2 if share else 0]
        scores = np.array([0.9, 0.123456789], np.float32)[: len(boxes)]
        return Detections(boxes, scores, np.arange(len(boxes)), NAMES, width, height)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_gray(path: str, gray: int = 50, size: tuple[int, int] = (30, 40)) -> None:
    write_image(path, np.full((*size, 3), gray, np.uint8))


def files(folder: str | Path) -> list[str]:
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def save(*formats: str, folder: str = "in", out: str = "out", conf: bool = False) -> Summary:
    return predict_images(Stub(), image_folder(folder), out, save=formats, save_conf=conf)  # type: ignore[arg-type]


def test_all_formats_keep_subfolders_and_names_in_any_script():
    for name in ("a.png", "süb dir/ü x.png", "none.png"):
        write_gray(f"in/{name}", 0 if name == "none.png" else 50)
    Path("in/bad.jpg").write_bytes(b"no image")
    summary = save(*ALL)
    assert summary.done == 3 and len(summary.skipped) == 1
    pictures = ["a.png", "none.png", "süb dir/ü x.png"]
    labels = ["labels/a.txt", "labels/süb dir/ü x.txt"]  # Ultralytics: none without objects
    crops = [f"crops/a_b_/{name}-2.jpg" for name in ("a", "süb dir/ü x")]
    crops += [f"crops/cat/{name}-1.jpg" for name in ("a", "süb dir/ü x")]
    lists = ["detections.coco.json", "detections.csv", "detections.json", "images.coco.json"]
    assert files("out") == sorted([*pictures, *labels, *crops, *lists])
    assert [entry["image"] for entry in json.loads(Path("out/detections.json").read_text())] == (
        pictures
    )


def test_labels_are_those_of_ultralytics():
    write_gray("in/a.png", 33, (31, 47))
    save("txt")
    save("txt", out="scored", conf=True)
    width = np.float32(0.33) * 47  # as Ultralytics: xywh in float32, then fractions, then %g
    values = (0, width / 2 / 47, 0.5, width / 47, 1)
    assert Path("out/labels/a.txt").read_text().splitlines()[0] == ("%g " * 5).rstrip() % values
    assert Path("scored/labels/a.txt").read_text().splitlines()[1] == (
        "1 0.0825 0.166667 0.165 0.333333 0.123457"
    )


def test_labels_and_images_are_a_dataset_that_supervision_reads():
    for index in range(3):
        write_gray(f"in/{index}.jpg", 20 * index)
    save("image", "txt")
    Path("data.yaml").write_text("names: [cat, b]\nnc: 2\n")
    dataset = sv.DetectionDataset.from_yolo("out", "out/labels", "data.yaml")
    found = {Path(path).stem: labels for path, _, labels in dataset}
    assert [len(found[str(index)]) for index in range(3)] == [0, 2, 2]
    np.testing.assert_allclose(found["1"].xyxy[0], [0, 0, 8, 30], atol=1e-3)


def test_rows_of_csv_and_crops_are_the_objects():
    write_gray('in/a,"b.png', 50)
    save("csv", "crops")
    rows = list(csv.DictReader(io.StringIO(Path("out/detections.csv").read_text())))
    assert [row["image"] for row in rows] == ['a,"b.png'] * 2
    assert [row["name"] for row in rows] == list(NAMES)
    assert [float(rows[0][key]) for key in ("x1", "y1", "x2", "y2")] == [0, 0, 20, 30]
    assert read_image('out/crops/cat/a,"b-1.jpg').shape == (30, 20, 3)


def test_one_name_for_all_files_of_an_image_and_nothing_is_overwritten():
    write_gray("in/a.jpg", 0)
    write_gray("in/a.png", 50)
    save("image", "txt")
    assert files("out") == ["a-2.png", "a.jpg", "labels/a-2.txt"]  # not a.txt, as of a.jpg
    save(*ALL)
    before = {name: Path("out", name).read_bytes() for name in files("out")}
    assert {"a-3.jpg", "a.png", "labels/a.txt", "detections.csv"} <= before.keys()
    assert "renamed 2 whose" in str(save(*ALL))
    assert {"a-4.jpg", "a-3.png", "labels/a-3.txt", "detections-2.csv"} <= set(files("out"))
    assert all(Path("out", name).read_bytes() == content for name, content in before.items())
    shutil.copytree("in", "copy")
    save(*ALL, folder="copy", out="copy")  # the folder of the images
    for name in ("a.jpg", "a.png"):
        assert Path("copy", name).read_bytes() == Path("in", name).read_bytes()


def test_the_folder_that_is_reported_is_there_even_if_nothing_was_found():
    write_gray("in/a.png", 0)
    assert "written: out" in str(save("txt")) and files("out") == [] and Path("out").is_dir()


def test_class_names_become_different_folders():
    names = ["a/b", "a:b", "A?B", "..", "", " ", "CON ", "é" * 200, "a\nb"]
    folders = class_folders(names)
    assert folders[:2] == ["a_b", "a_b-2"] and folders[3] == "_"
    assert len({name.casefold() for name in folders}) == len(names)
    for name in folders:
        Path("crops", name).mkdir(parents=True)
    assert len(list(Path("crops").iterdir())) == len(names)


def test_what_was_done_before_an_interruption_is_kept():
    class Interrupted(Stub):
        calls = 0

        def __call__(self, image: np.ndarray, /) -> Detections:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().__call__(image)

    for index in range(5):
        write_gray(f"in/{index}.png")
    with pytest.raises(KeyboardInterrupt):
        predict_images(Interrupted(), image_folder("in"), "out", "d.json", save=ALL)  # type: ignore[arg-type]
    for name in ("d.json", "out/detections.json"):
        assert len(json.loads(Path(name).read_text())) == 2
    assert len(json.loads(Path("out/detections.coco.json").read_text())) == 4
    assert len(json.loads(Path("out/images.coco.json").read_text())["images"]) == 2
    assert Path("out/detections.csv").read_text().count("\n") == 5
    assert not [name for name in files("out") if "part" in name]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["0007.png", "12.png"], [7, 12]),
        (["7.png", "sub/007.png"], [1, 2]),
        (["7.png", "b.png"], [1, 2]),
    ],
)
def test_ids_are_the_numbers_in_different_file_names_else_the_order(
    names: list[str], ids: list[int]
):
    for name in names:
        write_gray(f"in/{name}")
    save("coco")
    assert [image["id"] for image in COCO("out/images.coco.json").dataset["images"]] == ids
    assert {entry["image_id"] for entry in json.loads(_text("detections.coco.json"))} == set(ids)
    with redirect_stdout(io.StringIO()):
        results = COCO("out/images.coco.json").loadRes("out/detections.coco.json")
    assert len(results.anns) == 4


def _text(name: str) -> str:
    return Path("out", name).read_text()


@pytest.fixture
def coco(trained: Result, tmp_path: Path) -> Path:
    """The validation images of the tiny training as COCO, with ids of their own."""
    data = load_model(trained.run).config.data
    dataset = load_dataset(data, "val", (64, 64), progress=False)
    names = dataset.class_names
    ids = [10 * index + 5 for index in range(len(names))][::-1]
    images, rows = [], []
    for index, sample in enumerate(dataset.samples):
        write_image(tmp_path / f"data/val/{index}.png", sample.read_image())
        size = {"width": sample.width, "height": sample.height}
        images.append({"id": 1000 - index, "file_name": f"{index}.png", **size})
        for (x1, y1, x2, y2), label in zip(sample.boxes.tolist(), sample.labels, strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            row = {"id": len(rows) + 1, "image_id": 1000 - index, "iscrowd": 0}
            rows.append({**row, "category_id": ids[label], **box})
    categories = [{"id": ids[index], "name": name} for index, name in enumerate(names)]
    (tmp_path / "data/annotations").mkdir()
    path = tmp_path / "data/annotations/instances_val.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


@pytest.mark.parametrize("tile", [None, 48])
def test_pycocotools_gives_the_ap_of_eval(trained: Result, coco: Path, tile: int | None):
    words = ["data.format=coco", "data.root=data", "data.train=val", "device=cpu"]
    limits = load_model(trained.run).config.eval
    score = f"predict.score={limits.score}"
    same = [f"predict.{key}={getattr(limits, key)}" for key in ("nms_iou", "vote_iou")]
    predict(
        PredictOptions(
            source=["data/val"],
            weights=str(trained.run),
            out="out",
            save=["coco"],
            tile=tile,
            overrides=[*words, score, *same, f"predict.max_detections={limits.max_detections}"],
        )
    )
    changes = dict(word.split("=") for word in words) | {"eval.batch_size": 1}
    expected = evaluate_weights(
        str(trained.run), changes=changes, json_path="n.json", tiling=make_tiling(tile, None)
    )
    with redirect_stdout(io.StringIO()):
        evaluator = COCOeval(COCO(str(coco)), COCO(str(coco)).loadRes("out/detections.coco.json"))
        evaluator.params.iouType = "bbox"
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert 0 < expected.metrics.map50_95 == pytest.approx(evaluator.stats[0], abs=1e-9)
    assert expected.metrics.map50 == pytest.approx(evaluator.stats[1], abs=1e-9)
    used = {"tile": tile, "overlap": 0.2} if tile else {}
    numbers = json.loads(Path("n.json").read_text())
    assert {key: numbers[key] for key in ("tile", "overlap") if key in numbers} == used
