"""The functions of the Python clients against those of the project."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from nets.ops.nms import non_max_suppression
from utils.core.images import Letterbox

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = (
    (480, 640),
    (97, 151),
    (50, 500),
    (1, 300),
    (300, 1),
    (1, 1),
    (129, 65),
    (256, 128),
    (9, 9000),
)


@pytest.fixture(scope="module")
def client() -> ModuleType:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    spec = importlib.util.spec_from_file_location(
        "client", EXAMPLES / "python_onnxruntime" / "detect.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", SIZES)
def test_the_letterbox_is_ours_bit_for_bit(size: tuple[int, int], client: ModuleType) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for input_size in ((64, 64), (96, 64)):
        ours = Letterbox(size, input_size)
        canvas, factors, offsets = client.letterbox(image, *input_size)
        np.testing.assert_array_equal(canvas, ours.apply(image))
        box = np.array([[3.0, 4.0, 50.0, 60.0]], np.float32)
        clipped = np.clip((box - offsets) / factors, 0, (*size[::-1], *size[::-1]))
        np.testing.assert_allclose(clipped, ours.boxes_to_original(box), atol=1e-3)


@pytest.mark.parametrize("vote_iou", [0.6, 1.0])
@pytest.mark.parametrize(("score", "limit"), [(0.2, 300), (0.05, 20), (1.0, 300)])
def test_the_same_boxes_are_kept_and_voted(
    vote_iou: float, score: float, limit: int, client: ModuleType
) -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(-10, 60, (900, 2))
    boxes = np.float32(np.hstack([corner, corner + rng.uniform(0, 40, (900, 2))]))
    boxes[:5, 2:] = boxes[:5, :2]  # without area
    scores = np.float32(rng.uniform(0, 1, (900, 3)) ** 2)
    limits = {"score": score, "nms_iou": 0.45, "max_detections": limit, "vote_iou": vote_iou}
    tensors = torch.from_numpy(boxes)[None], torch.from_numpy(scores)[None]
    (ours,) = non_max_suppression(*tensors, **limits)
    assert bool(len(ours.scores)) == (score < 1)
    found = client.select(boxes, scores, {**limits, "voters": 1000})
    np.testing.assert_allclose(found[0], ours.boxes, atol=1e-3)
    np.testing.assert_array_equal(found[1], ours.scores)
    np.testing.assert_array_equal(found[2], ours.labels)


def test_the_python_clients_differ_in_the_network_only() -> None:
    """Each is one file to copy; so what they share is there twice."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("python_*/*.py"))]
    shared = [text[text.index("    metadata, network = load") :] for text in texts]
    assert len(shared) == 2 and shared[0] == shared[1]


def test_clients_import_nothing_of_the_project() -> None:
    sources = [path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("*.py")]
    assert sources
    assert not any("import nets" in text or "from nets" in text for text in sources)
    assert not any("import utils" in text or "from utils" in text for text in sources)
