"""Darknet's weight files: parity with OpenCV's Darknet importer, damaged files, writing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from darknet_files import SIZE, cfg_text, seeded_image
from make_parity import CASES, CELLS, OUT
from torch import Tensor

from nets import Detector, load_model
from nets.io.darknet import darknet_tensors, read_darknet, write_darknet
from nets.io.weights import load_weights, read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError

HEADER = 20  # bytes: three int32 and a uint64
STRIDES = (32, 16, 8)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def detector(
    case: str, darknet_file: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Detector:
    """Loaded from the seeded weights and the cfg beside them."""
    classes, new_coords, heads = CASES[case]
    path = tmp_path_factory.mktemp(case) / "a.weights"
    path.symlink_to(darknet_file(classes, heads))
    path.with_suffix(".cfg").write_text(cfg_text(classes, new_coords, heads), encoding="utf-8")
    return load_model(path, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def expected(case: str) -> dict[str, Tensor]:
    """What OpenCV 4 computed; see `make_parity.py`."""
    with np.load(OUT) as arrays:
        return {
            name.removeprefix(f"{case}_"): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith(f"{case}_")
        }


@pytest.fixture(scope="module")
def maps(detector: Detector) -> list[Tensor]:
    assert detector.input_size == SIZE
    image = torch.from_numpy(seeded_image().transpose(2, 0, 1)[None]) / 255
    with torch.no_grad():
        return detector.network(image)


def test_raw_maps_equal_opencvs(maps: list[Tensor], expected: dict[str, Tensor]) -> None:
    for raw, stride in zip(maps, STRIDES[: len(maps)], strict=True):
        rows, columns = CELLS[stride]
        cells = raw[0][:, rows, columns]
        torch.testing.assert_close(cells, expected[f"head{stride}"], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            raw[0].mean((1, 2)), expected[f"mean{stride}"], atol=1e-5, rtol=0
        )


def test_boxes_and_scores_equal_opencvs(
    detector: Detector, maps: list[Tensor], expected: dict[str, Tensor]
) -> None:
    """OpenCV's rows go cell by cell with the three anchors inside, ours anchor by anchor."""
    boxes, scores = (output[0] for output in detector.network.coder(maps))
    sizes = [raw.shape[-2:] for raw in maps]
    counts = [3 * height * width for height, width in sizes]
    strides = STRIDES[: len(maps)]
    heads = zip(strides, sizes, boxes.split(counts), scores.split(counts), strict=True)
    for stride, (height, width), head_boxes, head_scores in heads:
        rows, columns = CELLS[stride]
        theirs = expected[f"yolo{stride}"]
        cell_boxes = head_boxes.view(3, height, width, 4)[:, rows, columns].movedim(0, 1)
        corners = cell_boxes / torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
        centers = (corners[..., :2] + corners[..., 2:]) / 2
        ours = torch.cat([centers, corners[..., 2:] - corners[..., :2]], -1)
        torch.testing.assert_close(ours, theirs[..., :4], atol=1e-5, rtol=1e-4)
        cell_scores = head_scores.view(3, height, width, -1)[:, rows, columns].movedim(0, 1)
        shown = theirs[..., 5:] > 0  # the others lie below OpenCV's threshold
        assert shown.any() and not shown.all()
        torch.testing.assert_close(cell_scores[shown], theirs[..., 5:][shown], atol=1e-5, rtol=0)
        assert cell_scores[~shown].max() < theirs[..., 5:][shown].min() + 1e-5


def test_a_darknet_file_brings_darknets_settings(darknet_file: Callable[[int], Path]) -> None:
    detector = load_model(darknet_file(80), precision="fp32", device="cpu")
    coder = detector.network.coder
    assert (coder.new_coords, coder.scale_x_y) == (False, 1.05)
    assert coder.masks == ((3, 4, 5), (1, 2, 3))
    assert coder.anchors[:2].tolist() == [[10, 14], [23, 27]]
    assert (detector.names[0], detector.names[-1]) == ("person", "toothbrush")
    assert len(detector.names) == 80 and detector.config.phi == "none"


def test_the_number_of_classes_follows_from_the_length(darknet_file: Callable[[int], Path]) -> None:
    twenty = load_model(darknet_file(20), device="cpu")
    three = load_model(darknet_file(3), device="cpu")
    assert len(twenty.names) == 20 and twenty.names[0] == "aeroplane"
    assert three.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("heads", [2, 3])
def test_writing_gives_back_the_same_bytes(
    heads: int, darknet_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = darknet_file(3, heads)
    network = build_model(make_config({"model": {"heads": heads}}), 3)
    load_weights(network, read_weights(path))
    write_darknet(network, tmp_path / "out.weights", seen=32013312)
    assert (tmp_path / "out.weights").read_bytes() == path.read_bytes()


def test_the_number_of_heads_follows_from_the_length(darknet_file: Callable[..., Path]) -> None:
    """No length fits two heads and three: they leave different rests divided by 3."""
    detector = load_model(darknet_file(3, 3), device="cpu", precision="fp32")
    assert detector.network.coder.masks == ((6, 7, 8), (3, 4, 5), (0, 1, 2))
    assert detector.network.coder.anchors[0].tolist() == [12, 16]
    assert detector.config.model.heads == 3 and len(detector.names) == 3
    for heads, rest in ((2, 0), (3, 1)):
        counts = [(darknet_file(classes, heads).stat().st_size - HEADER) // 4 for classes in (1, 2)]
        assert [count % 3 for count in counts] == [rest, rest]


def test_variances_make_up_for_darknets_epsilon(tmp_path: Path) -> None:
    network = YOLOv4Tiny(1)
    network.backbone.stem1.bn.running_var.fill_(2e-5)
    write_darknet(network, tmp_path / "a.weights")
    start = HEADER // 4 + 3 * 32  # after bias, weight and mean
    variances = torch.from_numpy(np.fromfile(tmp_path / "a.weights", "<f4")[start : start + 32])
    torch.testing.assert_close(variances + 1e-6, torch.full((32,), 2e-5 + 1e-5), atol=0, rtol=1e-4)


def test_attention_cannot_be_written(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = YOLOv4Tiny(1, sites={"feat1": "se"})
    with pytest.raises(UserError, match="only phi=none"):
        write_darknet(network, tmp_path / "out.weights")
    assert not (tmp_path / "out.weights").exists()


def cut_before(layer: str, source: Path, path: Path) -> Path:
    """The file of 3 classes cut off before a layer."""
    count = 0
    with torch.device("meta"):
        tensors = darknet_tensors(YOLOv4Tiny(3))
    for name, tensor in tensors.items():
        if name.startswith(layer):
            break
        count += tensor.numel()
    path.write_bytes(source.read_bytes()[: HEADER + 4 * count])
    return path


def test_a_file_cut_off_after_a_layer_is_read_that_far(
    darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    """`yolov4-tiny.conv.29`: what Darknet's `partial` writes for training, without the heads."""
    path = cut_before("predict32", darknet_file(3), tmp_path / "yolov4-tiny.conv.29")
    network = YOLOv4Tiny(4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_weights(network, read_weights(path))
    whole = read_darknet(darknet_file(3))
    after = network.state_dict()
    assert len(report.matched) == report.total == 17 * 5
    assert not report.mismatched and not report.unexpected
    assert {name.split(".")[0] for name in report.matched} == {"backbone", "neck", "head32"}
    assert all(torch.equal(after[name], whole[name]) for name in report.matched)
    left = {name.split(".")[0] for name in report.missing}
    assert left == {"predict32", "neck", "head16", "predict16"}
    assert all(torch.equal(after[name], before[name]) for name in report.missing)
    with pytest.raises(UserError, match="no detection heads"):
        load_model(path)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut inside a layer": lambda data: data[:100_000],
    "a value short": lambda data: data[:-4],
    "a value too many": lambda data: data + b"\0\0\0\0",
    "no whole number of values": lambda data: data[:-3],
    "NaN": lambda data: data[:1000] + b"\xff" * 4 + data[1004:],
    # three classes less fit the length, but the heads begin elsewhere
    "heads cut": lambda data: data[: -4 * 2310 * 2],
    "cut inside a layer, after its biases": lambda data: data[: HEADER + 4 * 32],
    "nothing but the header": lambda data: data[:HEADER],
    "text": lambda data: b"these are not the weights you are looking for\n",
    "header cut": lambda data: data[:8],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_end_in_one_line(
    damage: str, darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    path = tmp_path / "bad.weights"
    path.write_bytes(DAMAGES[damage](darknet_file(3).read_bytes()))
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_old_file_counts_the_images_seen_in_four_bytes(
    darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    whole = darknet_file(3).read_bytes()
    old = tmp_path / "old.weights"
    old.write_bytes(np.array([0, 1, 0, 7], "<i4").tobytes() + whole[HEADER:])
    expected = read_darknet(darknet_file(3))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_darknet(old).items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n", "2 class names, but the weights have 3 classes"),
        (b"a\nb\nc\nd\n", "4 class names"),
        (b"", "the class list is empty"),
        (b"a\nb\na\n", "class 'a' is listed twice"),
    ],
)
def test_names_that_do_not_belong_to_the_weights_are_refused(
    content: bytes, words: str, darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.weights"
    path.symlink_to(darknet_file(3))
    path.with_suffix(".names").write_bytes(b"\xef\xbb\xbfa\r\nb\r\nc")
    assert load_model(path, device="cpu").names == ("a", "b", "c")
    path.with_suffix(".names").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.names: {words}"):
        load_model(path, device="cpu")
