"""The images of a split that is a folder."""

import shutil

import pytest

from tests.utils.data.read_results import load


@pytest.mark.parametrize("described", [True, False])
def test_images_in_subfolders_belong_to_the_split_and_hidden_files_do_not(
    described, write, tmp_path
):
    root = write.yolo(tmp_path)
    for kind in ("images", "labels"):
        shutil.move(root / kind, root / "whole")
        (root / kind).mkdir()
        shutil.move(root / "whole/train", root / kind / "train/camera")
        shutil.rmtree(root / "whole")
    (root / "images/train/camera/._a.jpg").write_bytes(b"\0\5\26\7")
    text = "names: [cat, dog, owl]\n" + "train: images/train\n" * described
    (root / "data.yaml").write_text(text)
    split = load("yolo", root)
    assert [sample.path.name for sample in split.samples] == ["a.jpg", "b.jpg", "c.png"]
    assert split.report.objects == 3
    assert not split.report.counts
