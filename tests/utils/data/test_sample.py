"""A sample's image comes from its file, or is drawn."""

from pathlib import Path

import numpy as np

from utils.core.images import write_image
from utils.data.sample import Sample


def test_image_is_read_from_the_file_or_drawn(tmp_path):
    image = np.full((8, 6, 3), 7, np.uint8)
    write_image(tmp_path / "a.png", image)
    assert (Sample(tmp_path / "a.png", 6, 8).read_image() == image).all()
    assert (Sample(Path("none"), 6, 8, draw=lambda: image + 1).read_image() == 8).all()
