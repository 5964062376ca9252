"""Seeded Darknet files, made without the code under test: weights, the `.cfg`, an image.

OpenCV 4 reads them in `make_parity.py`; the tests compare with what it computed.
"""

from pathlib import Path

import numpy as np

SIZE = (288, 416)  # (height, width): not square, so that swapped axes show
ANCHORS = {  # by the number of heads
    2: "10,14, 23,27, 37,58, 81,82, 135,169, 344,319",
    3: "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401",
}
MASKS = {2: ("3,4,5", "1,2,3"), 3: ("6,7,8", "3,4,5", "0,1,2")}


def seeded_image(size: tuple[int, int] = SIZE) -> np.ndarray:
    """RGB uint8 `(height, width, 3)`: noise in blocks of 8 pixels."""
    height, width = size
    rng = np.random.RandomState(1)
    blocks = rng.randint(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def write_weights(path: Path, classes: int, heads: int = 2, seed: int = 0) -> None:
    """Write a seeded weights file.

    int32 major, minor, revision; uint64 images seen; then float32 layer by layer: biases, for a
    normalized layer also scales, means and variances, then the kernels.
    """
    rng = np.random.RandomState(seed)
    with open(path, "wb") as file:
        file.write(np.array([0, 2, 5], "<i4").tobytes() + np.array([32013312], "<u8").tobytes())
        for inputs, outputs, size, normalized in _layers(classes, heads):
            parts = [rng.uniform(-0.3, 0.3, outputs)]
            if normalized:
                parts.append(rng.uniform(0.6, 1.4, outputs))
                parts.append(rng.uniform(-0.2, 0.2, outputs))
                parts.append(rng.uniform(0.5, 1.5, outputs))
            bound = np.sqrt(6 / (inputs * size * size))
            parts.append(rng.uniform(-bound, bound, outputs * inputs * size * size))
            for part in parts:
                file.write(part.astype("<f4").tobytes())


def _layers(classes: int, heads: int) -> list[tuple[int, int, int, bool]]:
    """Input channels, output channels, kernel size and whether normalized, in the file's order."""
    outputs = 3 * (5 + classes)
    layers = [(3, 32, 3, True), (32, 64, 3, True)]
    for channels in (64, 128, 256):
        half = channels // 2
        layers.append((channels, channels, 3, True))
        layers += 2 * [(half, half, 3, True)]
        layers.append((channels, channels, 1, True))
    layers += [(512, 512, 3, True), (512, 256, 1, True)]
    layers += [(256, 512, 3, True), (512, outputs, 1, False)]
    layers += [(256, 128, 1, True), (384, 256, 3, True), (256, outputs, 1, False)]
    if heads == 3:
        layers += [(256, 64, 1, True), (192, 128, 3, True), (128, outputs, 1, False)]
    return layers


def cfg_text(
    classes: int, new_coords: bool = False, heads: int = 2, size: tuple[int, int] = SIZE
) -> str:
    """The layers of Darknet's `yolov4-tiny.cfg`, or `yolov4-tiny-3l.cfg` with three heads.

    `new_coords` is a variant of the heads.
    """
    height, width = size
    sections = [f"[net]\nwidth={width}\nheight={height}\nchannels=3"]
    sections += [_conv(32, 3, stride=2), _conv(64, 3, stride=2)]
    for channels in (64, 128, 256):
        sections += [_conv(channels, 3), "[route]\nlayers=-1\ngroups=2\ngroup_id=1"]
        sections += [_conv(channels // 2, 3), _conv(channels // 2, 3), "[route]\nlayers=-1,-2"]
        sections += [_conv(channels, 1), "[route]\nlayers=-6,-1", "[maxpool]\nsize=2\nstride=2"]
    sections += [_conv(512, 3), _conv(256, 1), _conv(512, 3)]
    sections += _yolo(0, classes, new_coords, heads)
    sections += ["[route]\nlayers=-4", _conv(128, 1), "[upsample]\nstride=2"]
    sections += ["[route]\nlayers=-1,23", _conv(256, 3)]
    sections += _yolo(1, classes, new_coords, heads)
    if heads == 3:
        sections += ["[route]\nlayers=-3", _conv(64, 1), "[upsample]\nstride=2"]
        sections += ["[route]\nlayers=-1,15", _conv(128, 3)]
        sections += _yolo(2, classes, new_coords, heads)
    return "\n\n".join(sections) + "\n"


def _conv(filters: int, size: int, stride: int = 1) -> str:
    shape = f"filters={filters}\nsize={size}\nstride={stride}\npad=1"
    return f"[convolutional]\nbatch_normalize=1\n{shape}\nactivation=leaky"


def _yolo(head: int, classes: int, new_coords: bool, heads: int) -> list[str]:
    activation, scale = ("logistic", 2.0) if new_coords else ("linear", 1.05)
    filters = 3 * (5 + classes)
    coords = "\nnew_coords=1" if new_coords else ""
    return [
        f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation={activation}",
        f"[yolo]\nmask={MASKS[heads][head]}\nanchors={ANCHORS[heads]}\nclasses={classes}\n"
        f"num={3 * heads}\nscale_x_y={scale}{coords}",
    ]
