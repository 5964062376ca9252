"""A sample's image comes from its file, or is drawn."""

from pathlib import Path

import numpy as np
import pytest

from utils.core.images import PAD_VALUE, write_image
from utils.core.inputs import ReadError
from utils.data.sample import Sample


def test_image_is_read_from_the_file_or_drawn(tmp_path):
    image = np.full((8, 6, 3), 7, np.uint8)
    write_image(tmp_path / "a.png", image)
    assert (Sample(tmp_path / "a.png", 6, 8).read_image() == image).all()
    assert (Sample(Path("none"), 6, 8, draw=lambda: image + 1).read_image() == 8).all()


def test_gray_stands_for_what_cannot_be_decoded_not_for_what_is_missing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    gray = Sample(tmp_path / "a.png", 6, 8).read_image_or_gray()
    assert gray.shape == (8, 6, 3) and gray.dtype == np.uint8 and (gray == PAD_VALUE).all()
    with pytest.raises(ReadError):
        Sample(tmp_path / "missing.png", 6, 8).read_image_or_gray()
