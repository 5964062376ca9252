"""Small datasets on disk, and the real ones."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from dataset_files import (
    ITEMS,
    NAMES,
    Item,
    make_image,
    write_coco,
    write_voc,
    write_yolo,
    xml,
)


@pytest.fixture
def write() -> SimpleNamespace:
    """What the tests need of this file."""
    return SimpleNamespace(
        Item=Item,
        items=ITEMS,
        names=NAMES,
        make_image=make_image,
        voc=write_voc,
        coco=write_coco,
        yolo=write_yolo,
        xml=xml,
    )


@pytest.fixture
def datasets() -> Path:
    """The folder with the real datasets; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[3] / "../shared/datasets"
    if not folder.is_dir():
        pytest.skip("needs the real datasets in ../shared/datasets")
    return folder
