"""The objects that other programs' detections are compared with."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.utils.compare.foreign_files import write
from utils.compare.foreign.coco_truth import read_truth
from utils.core.errors import UserError


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), 5, "different image ids, got one twice"),
        (("images", 0, "width"), 0, r"images\.0\.width"),
        (("annotations", 2, "image_id"), 99, r"annotations\.2: image_id 99 is not in images"),
        (("annotations", 2, "category_id"), 9, r"annotations\.2: category_id 9 is not in categ"),
        (("annotations", 0, "bbox"), [0, 0, -1, 1], r"annotations\.0\.bbox\.2"),
        (("annotations",), [], "expected objects"),
        (("images",), [], "at least two images"),
        (("categories", 1, "name"), "cell", "'cell' is listed twice"),
        (("categories", 1, "id"), 1, "different category ids"),
    ],
)
def test_mistakes_in_the_truth(path, value: Any, words: str, content, tmp_path: Path):
    objects = section = copy.deepcopy(content[0])
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(UserError, match=words):
        read_truth(write(tmp_path / "instances.json", objects))
