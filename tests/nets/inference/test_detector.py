"""Images in, detections out: kinds of input, letterboxing, limits."""

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nets import Detector, load_model
from nets.attention.conformance import takes_channels_last
from nets.inference.detections import Detections
from nets.yolo.box_coder import BoxCoder
from nets.yolo.yolov4_tiny import build_model
from tests.nets.attention import user_blocks
from utils.core.errors import UserError
from utils.core.images import write_image
from utils.core.schema import Config, PredictConfig
from utils.engine.experiment import Result

ANCHORS = [[4, 4], [8, 4], [6, 6], [16, 16], [32, 16], [20, 20]]
EVERYTHING = PredictConfig(score=0.0, nms_iou=0.5, max_detections=20)


class OneBox(nn.Module):
    """A network that sees class 1 of 2 in one cell of the stride 16 map, whatever the image."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.coder = BoxCoder(ANCHORS, ((3, 4, 5), (0, 1, 2)))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen.append(images)
        count, _, height, width = images.shape
        maps = [
            torch.full((count, 3, 7, height // stride, width // stride), -12.0)
            for stride in (32, 16)
        ]
        maps[1][:, 1, :, 1, 2] = torch.tensor([0.0, 0, 0, 0, 12, -12, 12])[
            None
        ]  # anchor 8x4, cell x 2, y 1
        return [one.flatten(1, 2) for one in maps]


@pytest.fixture
def stub() -> Detector:
    config = Config(input_size=(64, 64), device="cpu", precision="fp32")
    return Detector(OneBox(), config, ["cat", "dog"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def detector(trained: Result) -> Detector:
    return load_model(trained.run)


def image_of(height: int = 50, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(first: Detections, second: Detections) -> None:
    np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-3)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-6)
    assert (first.labels == second.labels).all() and len(first) == len(second)


# cell center (2.5, 1.5) * 16 = (40, 24), size 8x4: [36, 22, 44, 26] in the 64x64 input
@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (64, 64, [36, 22, 44, 26]),
        (128, 128, [72, 44, 88, 52]),
        (50, 100, [56.25, 9.375, 68.75, 15.625]),  # scale 0.64, 16 rows of padding above
        (100, 50, [31.25, 34.375, 43.75, 40.625]),  # 16 columns of padding on the left
        (10, 100, [56.25, 0, 68.75, 0]),  # in the padding above: nothing is left of it but an edge
    ],
)
def test_boxes_come_back_in_pixels_of_the_image(
    stub: Detector, height: int, width: int, box: list[float]
):
    found = stub(np.zeros((height, width, 3), np.uint8))
    assert (found.width, found.height, found.names) == (width, height, ("cat", "dog"))
    if box[1] < box[3]:
        np.testing.assert_allclose(found.boxes, [box], atol=1e-3)
        assert found.labels.tolist() == [1] and found.scores[0] == pytest.approx(1, abs=1e-4)
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64


def test_the_network_sees_rgb_from_0_to_1(stub: Detector):
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[..., 1] = 255, 51
    stub(image)
    (seen,) = stub.backend.pipeline.network.seen  # type: ignore[attr-defined]
    assert seen.shape == (1, 3, 64, 64) and seen.dtype == torch.float32
    assert torch.allclose(seen[0, :, 10, 20], torch.tensor([1.0, 0.2, 0.0]))


def test_every_kind_of_image_gives_the_same(detector: Detector, tmp_path: Path):
    image = image_of()
    write_image(tmp_path / "a.png", image)
    planes = torch.from_numpy(image).permute(2, 0, 1)
    expected = detector(image, EVERYTHING)
    assert len(expected) > 0 and expected.image is None
    for other in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        planes,
        planes.float() / 255,
        planes.double() / 255,
        Image.fromarray(image),
        Image.fromarray(image).convert("RGBA"),
    ):
        assert_same(detector(other, EVERYTHING), expected)
    assert detector(tmp_path / "a.png").image == str(tmp_path / "a.png")


def test_a_list_gives_a_list(detector: Detector):
    images = [image_of(), image_of(80, 40, 1), image_of(64, 64, 2)]
    found = detector(images, EVERYTHING)
    assert isinstance(found, list) and [(one.height, one.width) for one in found] == [
        (50, 90),
        (80, 40),
        (64, 64),
    ]
    for image, together in zip(images, found, strict=True):
        assert_same(detector(image, EVERYTHING), together)
    assert [len(detector([images[0]], EVERYTHING)), detector([])] == [1, []]
    lazily = detector((image for image in images), EVERYTHING)
    assert list(map(len, lazily)) == list(map(len, found))
    assert len(detector([Image.fromarray(images[0])])) == 1


def test_there_is_one_name_per_class():
    with pytest.raises(UserError, match="1 class names, but the network has 2 classes"):
        Detector(OneBox(), Config(device="cpu"), ["cat"])  # type: ignore[arg-type]


def test_a_network_of_half_precision_is_widened(stub: Detector):
    network = build_model(Config(), 2).half()
    found = Detector(network, stub.config, ["cat", "dog"])(image_of(), EVERYTHING)
    assert len(found) == 20 and np.isfinite(found.boxes).all()


def test_weights_of_four_axes_are_laid_out_channels_last_and_five_are_allowed():
    config = Config(phi={"feat1": "tests.nets.attention.user_blocks:Deep"}, input_size=(64, 64))
    detector = Detector(build_model(config, 2), config, ["cat", "dog"], backend="torch")
    assert detector(image_of()).width == 90
    for network in (detector.network, detector.backend.pipeline.network):  # type: ignore[attr-defined]
        weight = network.backbone.stem1.conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
    takes_channels_last(partial(user_blocks.Deep, 16), 16)


@pytest.mark.parametrize("names", ["dog", ["dog"], iter(["dog"])])
def test_classes_are_kept_as_names(names: Iterable[str], stub: Detector):
    stub.classes = names
    for _ in range(2):
        assert stub(np.zeros((64, 64, 3), np.uint8)).per_class() == {"dog": 1}
    assert stub.classes == ("dog",)
    stub.classes = None
    assert stub.classes is None


def test_limits(detector: Detector):
    image = image_of()
    scores = detector(image, EVERYTHING).scores
    assert (np.diff(scores) <= 0).all() and len(scores) == 20
    cut = float(scores[4])
    assert len(detector(image, PredictConfig(score=cut, nms_iou=0.5))) <= 4
    default = detector.config.predict
    assert_same(detector(image), detector(image, default))
    assert len(detector(image, default.model_copy(update={"max_detections": 1, "score": 0.0}))) == 1


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((10, 10), np.uint8), r"RGB uint8 array .* got uint8 \(10, 10\)"),
        (np.zeros((10, 10, 4), np.uint8), r"\(10, 10, 4\)"),
        (np.zeros((10, 10, 3), np.float32), "got float32"),
        (torch.zeros(10, 10, 3), r"tensor \(3, height, width\), got \(10, 10, 3\)"),
        (torch.zeros(1, 3, 10, 10), r"got \(1, 3, 10, 10\)"),
        ("no/such.png", r"no/such\.png"),
        (np.zeros((0, 10, 3), np.uint8), r"got uint8 \(0, 10, 3\)"),
        (torch.zeros(3, 0, 10), r"got \(3, 0, 10\)"),
        (torch.full((3, 9, 9), 300, dtype=torch.int64), r"or floats 0..1, got torch.int64"),
        (torch.full((3, 9, 9), 255.0), r"floats 0..1, got 255 to 255"),
        (torch.full((3, 9, 9), torch.nan), r"floats 0..1, got nan"),
        (torch.full((3, 9, 9), -0.5), r"floats 0..1, got -0.5"),
        (7, r"expected a path, an RGB array, .* got int 7"),
        ([None], r"expected a path, an RGB array, .* got NoneType None"),
    ],
)
def test_images_of_another_kind_are_refused(stub: Detector, image: object, words: str):
    with pytest.raises(UserError, match=words):
        stub(image)  # type: ignore[call-overload]


def test_detections_are_cut_by_score_and_written_as_json():
    found = Detections(
        np.array([[1, 2, 3.456, 4], [0, 0, 1, 1]], np.float32),
        np.array([0.9, 0.12345], np.float32),
        np.array([1, 0]),
        ("cat", "dog"),
        10,
        20,
        "a.png",
    )
    assert dataclasses.asdict(found.above(0.5))["labels"].tolist() == [1]
    assert found.to_json() == {
        "image": "a.png",
        "width": 10,
        "height": 20,
        "detections": [
            {"box": [1.0, 2.0, 3.46, 4.0], "score": 0.9, "class": 1, "name": "dog"},
            {"box": [0.0, 0.0, 1.0, 1.0], "score": 0.1235, "class": 0, "name": "cat"},
        ],
    }
