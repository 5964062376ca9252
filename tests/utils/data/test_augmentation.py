"""Boxes move with their pixels, tiles do not mix, colors are right, batches follow the seed."""

import colorsys

import pytest
import torch
from augmentation_parts import NOTHING, seeded, singles
from torch import Tensor

from utils.core.images import PAD_VALUE
from utils.core.schema import AugmentConfig
from utils.data.augmentation import Augmenter, Batch, ImagePool, _color_matrix, to_float

SIZE = (72, 96)  # height, width
# one pure color for each of four images, each far from black, from gray and from the others
COLORS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=torch.uint8)


def drawn(rectangles: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """A black image per rectangle, which has the image's color; its label is the image's index."""
    canvases = torch.zeros(len(rectangles), *SIZE, 3, dtype=torch.uint8)
    for index, (x1, y1, x2, y2) in enumerate(rectangles):
        canvases[index, y1:y2, x1:x2] = COLORS[index % 4]
    boxes = torch.tensor(rectangles, dtype=torch.float32)[:, None]
    return canvases, boxes, torch.arange(len(rectangles))[:, None]


def augment(
    sources: tuple[Tensor, Tensor, Tensor], tiles: Tensor, seed: int = 0, **settings: object
) -> Batch:
    return Augmenter(AugmentConfig(**{**NOTHING, **settings}))(pool(sources), tiles, seeded(seed))


def pool(sources: tuple[Tensor, Tensor, Tensor]) -> ImagePool:
    height, width = sources[0].shape[1:3]
    whole = torch.tensor([[0.0, 0, width, height]]).expand(len(sources[0]), 4)
    return ImagePool(*sources, (sources[2] >= 0).sum(1), whole)


def noise(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    canvases = torch.randint(0, 256, (count, *SIZE, 3), generator=seeded(1)).to(torch.uint8)
    boxes = torch.tensor([[[10.0, 10, 50, 60], [20, 5, 90, 40], [0, 0, 0, 0]]]).repeat(count, 1, 1)
    return canvases, boxes, torch.tensor([[0, 1, -1]]).repeat(count, 1)


def pixels_of(image: Tensor, label: int) -> Tensor | None:
    """Extent x1 y1 x2 y2 of the pixels mostly of a rectangle's color, `None` if there are none."""
    color = COLORS[label % 4].float()[:, None, None] / 255
    shown = ((image - color).abs() < 0.5).all(0)
    y, x = shown.nonzero(as_tuple=True)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float() if len(x) else None


def test_nothing_asked_for_gives_the_input_back() -> None:
    canvases, boxes, labels = noise()
    batch = augment((canvases, boxes, labels), singles(3))
    assert torch.equal((batch.images * 255).round(), canvases.permute(0, 3, 1, 2).float())
    assert (
        batch.images.is_contiguous(memory_format=torch.channels_last)
        and batch.images.dtype == torch.float32
    )
    torch.testing.assert_close(
        batch.boxes, boxes[:, :2], atol=1e-4, rtol=0
    )  # the third place holds no object
    assert torch.equal(batch.labels, labels[:, :2])


def test_to_float_keeps_values_and_order() -> None:
    canvases, _, _ = noise()
    assert torch.equal(to_float(canvases), canvases.permute(0, 3, 1, 2) / 255)


def test_images_keep_the_order_in_which_they_were_asked_for() -> None:
    canvases = (torch.arange(5)[:, None, None, None] * 50).expand(5, *SIZE, 3).to(torch.uint8)
    sources = (canvases, torch.zeros(5, 1, 4), torch.full((5, 1), -1))
    tiles = torch.tensor(
        [[3, -1, -1, -1], [1, 1, 1, 1], [0, -1, -1, -1], [4, 4, 4, 4], [2, -1, -1, -1]]
    )
    batch = augment(sources, tiles)
    # a mosaic of one image shows it in every corner
    for row, index in enumerate((3, 1, 0, 4, 2)):
        middle = batch.images[row, :, SIZE[0] // 2, SIZE[1] // 2] * 255
        assert middle.round().tolist() == [50 * index] * 3


RECTANGLES = [[30, 20, 60, 50], [4, 30, 30, 60], [50, 8, 92, 30], [40, 40, 56, 68]]


def check_extents(batch: Batch, tolerance: float, exact: bool) -> int:
    """Every object that is kept lies where its pixels are; returns how many were compared."""
    compared = 0
    for image, boxes, labels in zip(batch.images, batch.boxes, batch.labels, strict=True):
        for box, label in zip(boxes, labels.tolist(), strict=True):
            if label < 0:
                continue
            shown = pixels_of(image, label)
            assert shown is not None, "an object is kept whose pixels are gone"
            excess = torch.cat(
                [shown[:2] - box[:2], box[2:] - shown[2:]]
            )  # above 0: the box is larger
            assert excess.min() > -tolerance, (box, shown)
            if exact:
                assert excess.max() < tolerance, (box, shown)
            compared += 1
    return compared


MOVES = {
    "flips": {"fliplr": 0.5, "flipud": 0.5},
    "scale": {"scale": (0.5, 2.0)},
    "shift": {"translate": 0.4},
    "all upright": {"fliplr": 0.5, "flipud": 0.5, "scale": (0.6, 1.5), "translate": 0.3},
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("mosaic", [False, True])
def test_boxes_move_with_their_pixels(move: str, mosaic: bool) -> None:
    sources = drawn(RECTANGLES)
    tiles = torch.stack([torch.arange(4).roll(k) for k in range(4)]) if mosaic else singles(4)
    compared = sum(
        check_extents(augment(sources, tiles, seed, **MOVES[move]), 1.5, True) for seed in range(15)
    )
    assert compared >= 40


@pytest.mark.parametrize("mosaic", [False, True])
@pytest.mark.parametrize(
    "turn", [{"degrees": 45.0}, {"shear": 20.0}, {"degrees": 20.0, "shear": 10.0}]
)
def test_boxes_hold_their_turned_pixels(turn: dict, mosaic: bool) -> None:
    sources = drawn(RECTANGLES)
    tiles = torch.stack([torch.arange(4).roll(k) for k in range(4)]) if mosaic else singles(4)
    settings = {**turn, "fliplr": 0.5, "flipud": 0.5, "scale": (0.7, 1.2), "translate": 0.1}
    compared = sum(
        check_extents(augment(sources, tiles, seed, **settings), 1.5, False) for seed in range(15)
    )
    assert compared >= 40


def test_a_turned_box_is_tight_while_nothing_is_cut() -> None:
    sources = drawn([[40, 28, 56, 44]] * 4)
    for seed in range(10):
        batch = augment(sources, singles(4), seed, degrees=45.0, scale=(0.8, 1.2))
        assert check_extents(batch, 2.5, True) == 4  # a tip is thinner than a pixel


def test_few_objects_are_dropped_that_still_show() -> None:
    """What is dropped shows less than a fifth of itself, or less than two pixels."""
    sources = drawn(RECTANGLES)
    dropped = 0
    for seed in range(20):
        batch = augment(sources, singles(4), seed, translate=0.6)
        for index in range(4):
            if batch.labels[index, 0] < 0:
                dropped += 1
                shown = pixels_of(batch.images[index], index)
                x1, y1, x2, y2 = RECTANGLES[index]
                area = 0.0 if shown is None else (shown[2:] - shown[:2]).clamp(min=0).prod().item()
                thin = shown is None or (shown[2:] - shown[:2]).min() <= 2
                assert thin or area < 0.3 * (x2 - x1) * (y2 - y1)
    assert dropped > 5


@pytest.mark.parametrize(
    "settings", [{}, {"degrees": 30.0, "scale": (0.3, 1.5), "fliplr": 0.5, "flipud": 0.5}]
)
def test_tiles_do_not_bleed_into_one_another(settings: dict) -> None:
    """Four images of one color each: every pixel of the mosaic has one of them or is padding."""
    sources = drawn([[0, 0, SIZE[1], SIZE[0]]] * 4)
    allowed = torch.cat([COLORS.float(), torch.full((1, 3), float(PAD_VALUE))]) / 255
    tiles = torch.arange(4).repeat(8, 1)
    images = augment(sources, tiles, 3, **settings).images
    distance = (images[:, None] - allowed[:, :, None, None]).abs().amax(2)  # (B, 5, h, w)
    assert distance.amin(1).max() < 2e-3
    seen = distance.argmin(1).unique().tolist()
    assert seen == ([0, 1, 2, 3, 4] if settings else [0, 1, 2, 3]), "unscaled tiles leave no gap"


def test_what_an_image_does_not_cover_is_padding_gray_whatever_hue_and_saturation_do() -> None:
    canvases, boxes, labels = noise()
    batch = augment((canvases, boxes, labels), singles(3), scale=(0.3, 0.3), hsv_h=0.5, hsv_s=1.0)
    assert (batch.images[:, :, 0, 0] * 255 - PAD_VALUE).abs().max() < 0.01


# color


def recolored(
    rgb: list[float], hue: float = 0.0, saturation: float = 1.0, value: float = 1.0
) -> Tensor:
    matrix = _color_matrix(torch.tensor([hue]), torch.tensor([saturation]), torch.tensor([value]))[
        0
    ]
    return matrix @ torch.tensor(rgb)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.0, 0.3])
@pytest.mark.parametrize("saturation", [0.0, 0.5, 1.5])
def test_gray_stays_gray_and_brightness_scales(hue: float, saturation: float) -> None:
    torch.testing.assert_close(
        recolored([0.4, 0.4, 0.4], hue, saturation, 1.25), torch.full((3,), 0.5), atol=1e-4, rtol=0
    )


def test_brightness_alone_scales_every_channel() -> None:
    torch.testing.assert_close(
        recolored([0.1, 0.5, 0.9], value=0.6), torch.tensor([0.06, 0.3, 0.54])
    )


def test_no_saturation_leaves_the_luma() -> None:
    luma = 0.299 * 0.1 + 0.587 * 0.5 + 0.114 * 0.9
    torch.testing.assert_close(
        recolored([0.1, 0.5, 0.9], saturation=0.0), torch.full((3,), luma), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("turn", [0.05, 0.15, -0.1])
def test_hue_turns_by_the_share_of_the_circle_asked_for(turn: float) -> None:
    """As `colorsys` measures it, up to the difference between the YIQ plane and the HSV cone."""
    turned = []
    for start in torch.arange(0, 1, 0.1).tolist():
        rgb = [0.5 + 0.1 * (c - 0.5) for c in colorsys.hsv_to_rgb(start, 1, 1)]
        after = colorsys.rgb_to_hsv(*recolored(rgb, hue=turn).tolist())[0]
        turned.append((after - start + 0.5) % 1 - 0.5)
    mean = sum(turned) / len(turned)
    assert abs(mean) == pytest.approx(abs(turn), abs=0.03)
    assert all(abs(step - mean) < 0.09 for step in turned), "every hue turns the same way"


def test_images_are_clipped_to_their_range() -> None:
    batch = augment(noise(), singles(3), hsv_v=1.0, hsv_s=1.0, hsv_h=0.5)
    assert batch.images.min() >= 0 and batch.images.max() <= 1


# chance


SETTINGS = AugmentConfig(mosaic=0.5, mixup=0.5, degrees=10, shear=3, flipud=0.5)


def make(seed: int, closing: bool = False) -> Batch:
    generator = seeded(seed)
    augmenter = Augmenter(SETTINGS, closing)
    partners = augmenter.mosaic_partners(3, 3, generator)
    return augmenter(pool(noise()), torch.cat([torch.arange(3)[:, None], partners], 1), generator)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, again, other = make(5), make(5), make(6)
    for name in ("images", "boxes", "labels"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.images, other.images) and not torch.equal(first.boxes, other.boxes)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first, state = make(5), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(make(5).images, first.images)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.3, 520, 680)]
)
def test_partners_are_drawn_for_the_asked_share(share: float, low: int, high: int) -> None:
    partners = Augmenter(AugmentConfig(mosaic=share)).mosaic_partners(2000, 7, seeded(0))
    chosen = partners[:, 0] >= 0
    assert partners.shape == (2000, 3) and partners.dtype == torch.int64
    assert low <= chosen.sum() <= high
    assert (partners[~chosen] == -1).all() and (partners[chosen] >= 0).all() and partners.max() < 7
    if share:
        assert partners[chosen].unique().tolist() == list(range(7))


def test_flips_come_as_often_as_asked() -> None:
    sources = drawn([[10, 10, 30, 30]])
    batch = augment(sources, torch.tensor([[0, -1, -1, -1]]).repeat(400, 1), fliplr=0.25)
    assert 70 <= (batch.boxes[:, 0, 0] > 50).sum() <= 130
    assert (batch.boxes[:, 0, 1] - 10).abs().max() < 1e-3, "flipud was not asked for"


def test_the_closing_epochs_have_neither_mosaic_nor_mixup() -> None:
    closing = Augmenter(SETTINGS, closing=True)
    assert (closing.mosaic_partners(50, 9, seeded(0)) == -1).all()
    assert make(5, closing=True).labels.shape == (3, 2)


def test_mixup_blends_with_the_neighbor_and_keeps_both_objects() -> None:
    sources, tiles = noise(), singles(3)
    plain, mixed = (
        augment(sources, tiles, 4, fliplr=0.5),
        augment(sources, tiles, 4, fliplr=0.5, mixup=1.0),
    )
    torch.testing.assert_close(mixed.images, (plain.images + plain.images.roll(1, 0)) / 2)
    assert torch.equal(mixed.boxes, torch.cat([plain.boxes, plain.boxes.roll(1, 0)], 1))
    assert torch.equal(mixed.labels, torch.cat([plain.labels, plain.labels.roll(1, 0)], 1))


def test_mixup_does_not_blend_a_lone_image_with_itself() -> None:
    plain, mixed = augment(noise(), singles(1)), augment(noise(), singles(1), mixup=1.0)
    assert torch.equal(mixed.labels, plain.labels) and torch.equal(mixed.images, plain.images)


def test_mixup_leaves_the_images_alone_that_it_does_not_choose() -> None:
    sources = noise(40)
    plain, mixed = augment(sources, singles(40)), augment(sources, singles(40), mixup=0.5)
    untouched = (mixed.labels[:, 3:] == -1).all(1)
    assert 8 <= untouched.sum() <= 32
    assert torch.equal(mixed.images[untouched], plain.images[untouched])
    assert not torch.isclose(mixed.images[~untouched], plain.images[~untouched]).all()
