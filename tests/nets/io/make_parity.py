"""Compute `data/opencv_parity.npz`, what OpenCV 4's Darknet importer makes of the seeded files.

OpenCV 5 has no such importer, and needs nothing of the project to do it, so run it with its own
environment, from the root of the repository:

    python -m venv /tmp/opencv4
    /tmp/opencv4/bin/pip install 'opencv-python-headless<4.12' numpy
    PYTHONPATH=tests/nets /tmp/opencv4/bin/python tests/nets/io/make_parity.py

For each head (stride 32, stride 16, stride 8) of each case it keeps, at a few cells, the raw map
`head` `(3 * (5 + C), cells)` and the rows of the `[yolo]` layer `yolo` `(cells, 3, 5 + C)`: center
and size as shares of the input, objectness, and scores, those below a threshold set to 0; and
`mean` `(3 * (5 + C),)`, the mean of the whole raw map.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from darknet_files import SIZE, cfg_text, seeded_image, write_weights

OUT = Path(__file__).parent / "data" / "opencv_parity.npz"
# Name -> classes, new_coords, heads
CASES = {"logits": (80, False, 2), "new_coords": (20, True, 2), "three_heads": (4, False, 3)}
# Rows and columns of the cells that are kept, of each head
CELLS = {32: ([0, 4, 8], [0, 7, 12]), 16: ([0, 9, 17], [25, 13, 3]), 8: ([0, 20, 35], [51, 9, 0])}


def compute(classes: int, new_coords: bool, heads: int) -> dict[str, np.ndarray]:
    """The kept values of one case."""
    with tempfile.TemporaryDirectory() as folder:
        weights, cfg = Path(folder) / "a.weights", Path(folder) / "a.cfg"
        write_weights(weights, classes, heads)
        cfg.write_text(cfg_text(classes, new_coords, heads), encoding="utf-8")
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    image = seeded_image().astype(np.float32) / 255
    net.setInput(image.transpose(2, 0, 1)[None])
    yolo_names = net.getUnconnectedOutLayersNames()
    map_names = [_convolution_before(name, list(net.getLayerNames())) for name in yolo_names]
    values: dict[str, np.ndarray] = {}
    cells = list(CELLS.items())[:heads]
    outputs = zip(cells, net.forward(map_names), net.forward(yolo_names), strict=True)
    for (stride, (rows, columns)), raw, yolo in outputs:
        height, width = SIZE[0] // stride, SIZE[1] // stride
        assert raw.shape == (1, 3 * (5 + classes), height, width)
        values[f"head{stride}"] = raw[0][:, rows, columns]
        values[f"mean{stride}"] = raw[0].mean((1, 2), dtype=np.float64)
        values[f"yolo{stride}"] = yolo.reshape(height, width, 3, 5 + classes)[rows, columns]
    return values


def _convolution_before(name: str, names: list[str]) -> str:
    return [other for other in names[: names.index(name)] if other.startswith("conv")][-1]


def main() -> None:
    """Write the file."""
    arrays = {}
    for case, options in CASES.items():
        for name, values in compute(*options).items():
            arrays[f"{case}_{name}"] = values.astype(np.float32)
            print(case, name, values.shape, np.abs(values).max(), (values > 0).mean())
    np.savez_compressed(OUT, **arrays)
    print(f"written: {OUT} ({OUT.stat().st_size} bytes, OpenCV {cv2.__version__})")


if __name__ == "__main__":
    main()
