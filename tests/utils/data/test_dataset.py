"""Caches agree bit for bit, the disk cache is shared and renewed, broken files never crash."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.core.images import PAD_VALUE, Letterbox, read_image
from utils.core.inputs import ReadError
from utils.core.schema import DataConfig
from utils.data import dataset as dataset_module
from utils.data import disk_cache
from utils.data.dataset import DetectionDataset, pad_targets
from utils.data.dataset_report import DatasetReport
from utils.data.loading import load_dataset

SIZE = (64, 96)


@pytest.fixture
def dataset_folder(write, tmp_path):
    boxes = [("cat", 5, 5, 20, 30), ("dog", 1, 2, 9, 9)]
    items = [
        write.Item(f"{index}.jpg", (50 + 30 * (index % 3), 40 + 25 * (index % 4)), boxes)
        for index in range(9)
    ]
    return write.voc(tmp_path / "data", items)


def read_samples(folder):
    data = DataConfig(format="voc", root=str(folder))
    return load_dataset(data, "train", SIZE, progress=False).samples


@pytest.fixture
def samples(dataset_folder):
    return read_samples(dataset_folder)


def filled(samples, folder, cache="ram", **keys) -> DetectionDataset:
    dataset = DetectionDataset(samples, SIZE, cache=cache, cache_dir=folder, **keys)
    dataset.prepare(progress=False)
    return dataset


def forbid_decoding(monkeypatch) -> None:
    def forbidden(content, path):
        raise AssertionError(f"decoded {path}")

    monkeypatch.setattr(dataset_module, "decode_image", forbidden)


def test_canvas_and_boxes_are_letterboxed(samples):
    dataset = DetectionDataset(samples, SIZE)
    order = [4, 0, 4, 8]
    canvases = dataset.canvases(order)
    assert canvases.shape == (4, *SIZE, 3)
    assert canvases.dtype == np.uint8
    for canvas, index in zip(canvases, order, strict=True):
        sample = samples[index]
        letterbox = Letterbox((sample.height, sample.width), SIZE)
        np.testing.assert_array_equal(canvas, letterbox.apply(read_image(sample.path)))
        scale = min(SIZE[0] / sample.height, SIZE[1] / sample.width)
        pad = np.array([SIZE[1] - sample.width * scale, SIZE[0] - sample.height * scale]) / 2
        np.testing.assert_allclose(
            dataset.boxes[index], sample.boxes * scale + np.tile(pad, 2), atol=1.0
        )
        assert dataset.letterboxes[index] == letterbox
        assert dataset.labels[index].tolist() == [0, 1]


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_every_cache_and_worker_count_gives_the_same_bits(cache, workers, samples, tmp_path):
    expected = np.stack(
        [
            Letterbox((sample.height, sample.width), SIZE).apply(read_image(sample.path))
            for sample in samples
        ]
    )
    dataset = filled(samples, tmp_path / "cache", cache, workers=workers)
    np.testing.assert_array_equal(dataset.canvases(range(len(samples))), expected)
    order = [3, 3, 0, 7]
    np.testing.assert_array_equal(dataset.canvases(order), expected[order])


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_full_cache_never_decodes_and_hands_out_copies(cache, samples, tmp_path, monkeypatch):
    dataset = filled(samples, tmp_path / "cache", cache)
    forbid_decoding(monkeypatch)
    first = dataset.canvases([2])
    before = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(dataset.canvases([2]), before)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cache_gb_bounds_the_cache(cache, samples, tmp_path, monkeypatch):
    room = 4.5 * SIZE[0] * SIZE[1] * 3 / 2**30
    dataset = filled(samples, tmp_path / "cache", cache, cache_gb=room)
    [notice] = dataset.notices
    assert "holds 4 of 9 images" in notice
    assert "\n" not in notice
    decoded = []
    original = dataset_module.decode_image
    monkeypatch.setattr(
        dataset_module,
        "decode_image",
        lambda content, path: decoded.append(path) or original(content, path),
    )
    dataset.canvases(range(9))
    assert decoded == [sample.path for sample in samples[4:]]
    if cache == "disk":
        [file] = (tmp_path / "cache").iterdir()
        assert file.stat().st_size <= room * 2**30


def test_disk_cache_is_used_again_and_renewed_when_a_file_changes(
    dataset_folder, samples, write, tmp_path, monkeypatch
):
    folder = tmp_path / "cache"
    expected = filled(samples, folder, "disk").canvases(range(9))
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        np.testing.assert_array_equal(filled(samples, folder, "disk").canvases(range(9)), expected)
    sample = samples[5]
    write.make_image((sample.width, sample.height), seed=99).save(sample.path)
    os.utime(sample.path, ns=(1, 1))
    renewed = filled(read_samples(dataset_folder), folder, "disk").canvases(range(9))
    changed = (renewed != expected).any((1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [5]
    assert len(list(folder.iterdir())) == 2


def test_disk_cache_key_depends_on_order_and_size(samples):
    keys = {
        disk_cache.cache_key(samples, SIZE),
        disk_cache.cache_key(samples[::-1], SIZE),
        disk_cache.cache_key(samples, (64, 64)),
    }
    assert len(keys | {disk_cache.cache_key(samples[:-1], SIZE)}) == 4
    assert disk_cache.cache_key(samples, SIZE) in keys


@pytest.mark.slow
def test_two_processes_share_the_disk_cache(samples, tmp_path):
    script = (
        "import sys, hashlib\n"
        "from utils.data.loading import load_dataset\n"
        "from utils.data.dataset import DetectionDataset\n"
        "from utils.core.schema import DataConfig\n"
        "data = DataConfig(format='voc', root=sys.argv[1])\n"
        "samples = load_dataset(data, 'train', (64, 64), progress=False).samples\n"
        "images = DetectionDataset(samples, (64, 96), cache='disk', cache_dir=sys.argv[2])\n"
        "images.prepare(progress=False)\n"
        "canvases = images.canvases(range(len(samples)))\n"
        "print(hashlib.sha256(canvases.tobytes()).hexdigest(), images.notices)\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(samples[0].path.parents[1]),
        str(tmp_path / "cache"),
    ]
    root = Path(__file__).resolve().parents[3]
    both = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = {process.communicate()[0] for process in both}
    assert len(outputs) == 1
    assert "[]" in outputs.pop()
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".bin"]


def test_interrupted_writing_leaves_nothing(samples, tmp_path, monkeypatch):
    def stop(content, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "decode_image", stop)
    with pytest.raises(KeyboardInterrupt):
        filled(samples, tmp_path / "cache", "disk")
    assert list((tmp_path / "cache").iterdir()) == []


def test_disk_that_cannot_be_written_is_a_notice(samples, tmp_path):
    (tmp_path / "file").write_text("in the way")
    dataset = filled(samples, tmp_path / "file", "disk")
    assert "cannot write" in dataset.notices[0]
    np.testing.assert_array_equal(
        dataset.canvases([1]), DetectionDataset(samples, SIZE).canvases([1])
    )


def test_outdated_disk_caches_are_removed(samples, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    old, fresh, other = folder / "old.bin", folder / "fresh.bin", folder / "notes.txt"
    for path in (old, fresh, other):
        path.write_bytes(b"x")
    past = time.time() - 86400 * (disk_cache.UNUSED_DAYS + 1)
    os.utime(old, (past, past))
    os.utime(other, (past, past))
    filled(samples, folder, "disk")
    assert not old.exists()
    assert fresh.exists()
    assert other.exists()


def damage(path, content=None):
    """Damage the data of an image whose header stays intact."""
    intact = path.read_bytes()
    path.write_bytes(intact[: len(intact) * 2 // 3] if content is None else content)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_broken_files_are_counted_once_and_never_crash(cache, samples, tmp_path):
    damage(samples[1].path, b"broken")
    damage(samples[3].path)
    # as they were when they were checked: their header is read, not their pixels
    for index in (1, 3):
        size = samples[index].path.stat().st_size
        samples[index] = replace(samples[index], file_size=size)
    for attempt in range(2):  # the second reads the first one's disk cache
        report = DatasetReport()
        dataset = filled(samples, tmp_path / "cache", cache, report=report)
        assert sum(report.counts.values()) == (0 if cache == "none" else 2)
        canvases = dataset.canvases([0, 1, 2, 3, 1])
        assert report.counts == {"image undecodable": 1, "image truncated": 1}, attempt
        assert (canvases[[1, 4]] == PAD_VALUE).all()
        assert canvases[3].std() > 10
        assert [len(boxes) for boxes in dataset.boxes[:4]] == [2, 0, 2, 2]
        assert [
            len(column[1]) for column in (dataset.labels, dataset.difficult, dataset.crowd)
        ] == [0, 0, 0]
        assert len(samples[1].boxes) == 2


@pytest.mark.parametrize("outage", ["file gone", "folder gone", "file cut off"])
def test_an_image_that_is_out_of_reach_for_a_moment_is_waited_for(
    outage, samples, tmp_path, capsys
):
    dataset = filled(samples, tmp_path, "none", read_timeout=20)
    expected = dataset.canvases(range(4))
    path = samples[2].path
    content, folder, away = path.read_bytes(), path.parent, path.parent.with_name("away")
    if outage == "folder gone":
        folder.rename(away)
        restore = threading.Timer(0.7, away.rename, [folder])
    else:
        path.write_bytes(content[:100])
        if outage == "file gone":
            path.unlink()
        restore = threading.Timer(0.7, path.write_bytes, [content])
    restore.start()
    np.testing.assert_array_equal(dataset.canvases(range(4)), expected)
    assert [len(boxes) for boxes in dataset.boxes[:4]] == [2, 2, 2, 2]
    assert not dataset.report.counts
    assert "waiting up to 20 s" in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_an_image_that_stays_out_of_reach_is_an_error(cache, samples, tmp_path):
    samples[2].path.unlink()
    dataset = DetectionDataset(
        samples, SIZE, cache=cache, cache_dir=tmp_path / "cache", read_timeout=0.3
    )
    with pytest.raises(ReadError, match=rf"{samples[2].path.name}: no such file"):
        dataset.prepare(progress=False) or dataset.canvases([2])
    assert len(dataset.boxes[2]) == 2


def test_drawn_images_are_cached_too(tmp_path):
    samples = load_dataset(DataConfig(shapes_train=3), "train", SIZE).samples
    expected = np.stack([sample.draw() for sample in samples])
    for cache in ("ram", "disk", "none"):
        np.testing.assert_array_equal(
            filled(samples, tmp_path, cache).canvases([0, 1, 2]), expected
        )


def test_pad_targets():
    boxes = [
        np.ones((2, 4), np.float32),
        np.zeros((0, 4), np.float32),
        np.full((1, 4), 7, np.float32),
    ]
    labels = [np.array([3, 0]), np.zeros(0, np.int64), np.array([5])]
    padded, classes = pad_targets(boxes, labels)
    assert padded.dtype == torch.float32
    assert classes.dtype == torch.int64
    assert classes.tolist() == [[3, 0], [-1, -1], [5, -1]]
    assert padded[:, :, 0].tolist() == [[1, 1], [0, 0], [7, 0]]
    padded, classes = pad_targets(boxes[1:2], labels[1:2])
    assert padded.shape == (1, 1, 4)
    assert classes.tolist() == [[-1]]


def test_crowd_regions_are_not_counted_as_objects(samples):
    crowds = [replace(sample, crowd=sample.labels == 0) for sample in samples]
    dataset = DetectionDataset(crowds, SIZE, class_names=("cat", "dog", "owl"))
    assert dataset.count_objects().tolist() == [0, 9, 0]
