"""The fields of a configuration: type, range, default and one-line description.

`python train.py --explain` prints them. Loading, inheritance and overrides: `utils.core.config`.
"""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from utils.core.errors import shorten

# Former names of keys; configurations saved with them can still be read
RENAMED = {
    "augment.flip_h": "augment.fliplr",
    "augment.flip_v": "augment.flipud",
    "augment.shift": "augment.translate",
    "augment.hue": "augment.hsv_h",
    "augment.saturation": "augment.hsv_s",
    "augment.value": "augment.hsv_v",
    "train.ema": "train.ema_decay",
    "train.clip": "train.max_grad_norm",
    "train.final_lr": "train.final_lr_ratio",
    "eval.merge_iou": "eval.vote_iou",
    "predict.merge_iou": "predict.vote_iou",
}

# Upper bounds are far above what anyone trains with. They refuse slips of the keyboard before
# memory is allocated or threads are started, and numbers that float32 cannot represent.
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Zoom = Annotated[float, Field(ge=0.05, le=20)]
AnchorSide = Annotated[float, Field(ge=0.1, le=16384)]  # pixels
Gigabytes = Annotated[float, Field(ge=0, le=1_000_000)]
Epochs = Annotated[int, Field(ge=0, le=1_000_000)]
EpochCount = Annotated[int, Field(ge=1, le=1_000_000)]
Images = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Detections = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # 2**32 gives the same random numbers as 0
Words = Annotated[str, Field(min_length=1, max_length=4096)]  # as long as a path may be

LoggerName = Literal["tensorboard", "mlflow", "wandb"]

MAX_SIDE = 4096  # pixels; training then takes about 8 GiB per image
MAX_NAME = 240  # bytes; file systems allow 255, and "-2" may be appended


def _parse_size(value: Any) -> Any:
    """416 -> (416, 416); both sides must be multiples of 32, the largest stride of the network."""
    size = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or not all(
        type(side) is int and 32 <= side <= MAX_SIDE and side % 32 == 0 for side in size
    ):
        raise ValueError(
            "expected an integer or [height, width], multiples of 32 (the stride of the last map) "
            f"up to {MAX_SIDE}, got {shorten(value, quoted=True)}"
        )
    return tuple(size)


def _check_name(name: str) -> str:
    if name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError(
            f"expected the name of one folder, got {shorten(name, quoted=True)}; "
            "`output` is the folder it lies in"
        )
    size = len(name.encode())
    if size > MAX_NAME:
        raise ValueError(f"expected at most {MAX_NAME} bytes, got {size:,}")
    return name


def _check_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,2})?", name):
        raise ValueError(
            f"expected auto, cpu, cuda, cuda:1 or mps, got {shorten(name, quoted=True)}"
        )
    return name


def _refuse_unusable(value: Any) -> None:
    """Refuse true and false where no switch is expected, and control characters."""
    if isinstance(value, bool):
        raise ValueError(f"expected no true or false here, got {str(value).lower()}")
    if isinstance(value, str) and any(unicodedata.category(letter) == "Cc" for letter in value):
        raise ValueError(
            f"expected text without control characters, got {shorten(value, quoted=True)}"
        )
    if isinstance(value, (list, tuple)):
        for item in value:
            _refuse_unusable(item)


def _settled(value: int | str) -> int:
    if isinstance(value, str):
        raise RuntimeError("auto is settled by utils.engine.settle when the data is known")
    return value


class ConfigSection(BaseModel):
    """A section of the configuration: immutable, without unknown keys or silent conversions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_empty_section(cls, values: Any) -> Any:
        """`train:` with all of its keys commented out."""
        return {} if values is None else values

    @field_validator("*", mode="before")
    @classmethod
    def _check_plain(cls, value: Any, info: ValidationInfo) -> Any:
        if cls.model_fields[str(info.field_name)].annotation is not bool:
            _refuse_unusable(value)
        return value


class AttentionConfig(ConfigSection):
    at: list[str] = Field(
        ["feat1", "feat2", "upsample"],
        description="sites that carry the block of `phi`; `python -m nets` lists all sites",
    )
    init: Literal["paper", "identity"] | None = Field(
        None,
        description="paper: as published; identity: every block starts as x -> x and so keeps the "
        "outputs of pretrained weights; null: identity with `weights` that have no blocks, else "
        "paper",
    )

    @field_validator("at")
    @classmethod
    def _check_different(cls, sites: list[str]) -> list[str]:
        for site in sites:
            if sites.count(site) > 1:
                raise ValueError(
                    f"expected different sites, got {shorten(site, quoted=True)} twice"
                )
        return sites


def _default_masks(heads: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((first, first + 1, first + 2) for first in range(3 * heads - 3, -1, -3))


class ModelConfig(ConfigSection):
    heads: Literal[2, 3] = Field(
        2,
        description="2: at strides 32 and 16; 3: also at stride 8, for small objects, as in "
        "Darknet's yolov4-tiny-3l.cfg",
    )
    anchors: Literal["auto"] | list[tuple[AnchorSide, AnchorSide]] = Field(
        "auto",
        description="[width, height] in input pixels, three per head, smallest first; auto: "
        "k-means on the training boxes",
    )
    anchor_masks: tuple[tuple[int, int, int], ...] | None = Field(
        None,
        description="indices of the three anchors of each head, stride 32 first; null: the largest "
        "in the first, [[3, 4, 5], [0, 1, 2]] with two heads",
    )
    new_coords: bool = Field(
        True,
        description="Darknet's box coder; true: (2 sigmoid)^2 * anchor, bounded; false: exp * "
        "anchor, which Darknet's published weights need",
    )
    scale_x_y: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None,
        description="factor that stretches the range of box centers; null: 2 with new_coords, else "
        "1.05",
    )

    @property
    def num_anchors(self) -> int:
        """Number of anchors of all heads."""
        return 3 * self.heads

    @property
    def masks(self) -> tuple[tuple[int, int, int], ...]:
        """Indices of the three anchors of each head, `anchor_masks` or its default."""
        return self.anchor_masks or _default_masks(self.heads)

    @field_validator("anchors")
    @classmethod
    def _check_count(cls, anchors: Any, info: ValidationInfo) -> Any:
        heads = info.data.get("heads", 0)  # 0: refused already
        if heads and anchors != "auto" and len(anchors) != 3 * heads:
            raise ValueError(
                f"expected 'auto' or {3 * heads} [width, height] for model.heads={heads}, got "
                f"{len(anchors)}"
            )
        return anchors

    @field_validator("anchor_masks")
    @classmethod
    def _check_indices(cls, masks: Any, info: ValidationInfo) -> Any:
        heads = info.data.get("heads", 0)
        if not heads or masks in (None, _default_masks(heads)):
            return None
        given = shorten(list(map(list, masks)))
        if len(masks) != heads:
            raise ValueError(
                f"expected {heads} lists of indices for model.heads={heads}, got {given}"
            )
        if not all(0 <= index < 3 * heads for mask in masks for index in mask):
            raise ValueError(f"expected anchor indices 0 to {3 * heads - 1}, got {given}")
        if any(len(set(mask)) < 3 for mask in masks):
            raise ValueError(f"expected different anchors in each head, got {given}")
        return masks


class DataConfig(ConfigSection):
    format: Literal["auto", "shapes", "voc", "coco", "yolo"] = Field(
        "auto",
        description="voc, coco, yolo, shapes (images drawn by this program); auto: as recognized "
        "in `root`, shapes without it",
    )
    root: Annotated[str, Field(max_length=4096)] = Field(
        "",
        description="folder of the dataset, or its data.yaml; relative to the working directory",
    )
    train: Words = Field(
        "train",
        description="training split; voc: a list in ImageSets/Main, or several "
        "(2007/trainval+2012/trainval)",
    )
    val: Words = Field("val", description="validation split, named like `train`")
    test: Words | None = Field(
        None,
        description="test split, named like `train`, that the chosen weights are scored on once, "
        "at the end; null: none",
    )
    val_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="share of the training images that becomes the validation split; null: 0.2 if "
        "the dataset has none",
    )
    split_seed: Seed = Field(0, description="seed of that division")
    classes: list[str] | Words | None = Field(
        None,
        description="class names, or a text file with one name per line; null: read from the "
        "dataset if it names its classes",
    )
    download: bool = Field(
        False,
        description="voc: download VOC2007 and VOC2012 through torchvision if they are missing",
    )
    cache: Literal["ram", "disk", "none"] = Field(
        "ram",
        description="ram, disk or none: where decoded, letterboxed images are kept between epochs",
    )
    cache_gb: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        4.0,
        description="memory or disk space for that cache, GiB; images beyond it are decoded every "
        "epoch",
    )
    gpu_cache_gb: Gigabytes | None = Field(
        None,
        description="GPU memory for the decoded training images, GiB; null: half of what is free",
    )
    read_timeout: Annotated[float, Field(ge=0, le=86_400)] = Field(
        30.0,
        description="seconds to wait for an image that can no longer be read, as on a network "
        "disk; then the training is saved and stops",
    )
    shapes_train: Images = Field(480, description="shapes: number of training images")
    shapes_val: Images = Field(120, description="shapes: number of validation images")
    shapes_seed: Seed = Field(
        0, description="shapes: seed of the images, independent of the training seed"
    )

    @field_validator("test")
    @classmethod
    def _check_test(cls, test: str | None, info: ValidationInfo) -> str | None:
        for key in ("train", "val"):
            if test is not None and test == info.data.get(key):
                raise ValueError(f"expected a split of its own, got that of data.{key}")
        return test


class AugmentConfig(ConfigSection):
    mosaic: Probability = Field(0.5, description="share of images that are mosaics of four")
    close_mosaic: Epochs = Field(5, description="number of final epochs without mosaic and mixup")
    mixup: Probability = Field(0.0, description="share of images that are blended with another one")
    fliplr: Probability = Field(0.5, description="probability of a left-right flip")
    flipud: Probability = Field(
        0.0,
        description="probability of an up-down flip; set 0.5 if images have no upright direction",
    )
    scale: tuple[Zoom, Zoom] = Field((0.6, 1.5), description="smallest and largest zoom factor")
    translate: Probability = Field(
        0.1, description="maximum translation, as a fraction of the image's width and height"
    )
    degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="maximum rotation angle, degrees"
    )
    shear: Annotated[float, Field(ge=0, le=40)] = Field(
        0.0, description="maximum shear angle, degrees; at 45 an image would become a line"
    )
    hsv_h: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.015, description="maximum hue shift, as a fraction of the color circle"
    )
    hsv_s: Probability = Field(0.5, description="maximum relative change of saturation")
    hsv_v: Probability = Field(0.4, description="maximum relative change of brightness")

    @field_validator("scale")
    @classmethod
    def _check_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"expected [smallest, largest], got {list(scale)}")
        return scale


class LossConfig(ConfigSection):
    assign: Literal["best", "iou", "ratio", "aligned"] = Field(
        "ratio",
        description="best, iou, ratio or aligned: which anchors learn an object; docs/training.md "
        "compares them",
    )
    anchor_ratio: Annotated[float, Field(gt=1, le=1000)] = Field(
        4.0, description="ratio, aligned: maximum ratio between the sides of object and anchor"
    )
    anchor_iou: Probability = Field(
        0.2, description="iou: minimum IoU of object and anchor shapes (Darknet's iou_thresh)"
    )
    top_k: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="aligned: number of anchors assigned to each object"
    )
    box: Weight = Field(4.0, description="weight of the CIoU box loss")
    objectness: Weight = Field(1.5, description="weight of the objectness loss")
    cls: Weight = Field(1.2, description="weight of the classification loss")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="e in the class targets y(1 - e) + e / number of classes"
    )
    class_weights: Literal["none", "balanced"] | Annotated[list[Weight], Field(min_length=1)] = (
        Field(
            "none",
            description="weight of an object in the classification loss, by its class: none, "
            "balanced (inverse to the number of objects), or a list in the order of the classes",
        )
    )

    @model_validator(mode="after")
    def _check_weights(self) -> "LossConfig":
        if not self.box + self.objectness + self.cls:
            raise ValueError("box, objectness and cls are all 0: expected a weight above 0")
        return self


class TrainConfig(ConfigSection):
    epochs: Literal["auto"] | EpochCount = Field(
        "auto",
        description="number of passes over the training images; auto: about 2,000 steps, but 30 to "
        "300 epochs",
    )
    batch_size: Literal["auto"] | BatchSize = Field(
        "auto",
        description="images per forward pass; auto: 16, or 8 with fewer than 1,000 images, in "
        "parts (`accumulate`) if memory is short",
    )
    accumulate: Annotated[int, Field(ge=1, le=65_536)] = Field(
        1,
        description="number of forward passes per step: like a batch size `accumulate` times as "
        "large, in the memory of one, except for batch norm",
    )
    multi_scale: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0,
        description="train at sizes up to this share smaller and larger than `input_size`, a "
        "different one in every step",
    )
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="threads that decode images; 0: two while the cache is being filled, then one",
    )
    optimizer: Literal["muon", "sgd", "adamw"] = Field(
        "muon",
        description="muon (orthogonalized updates of the convolutions), sgd (with Nesterov "
        "momentum) or adamw",
    )
    lr: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="peak learning rate; null: 0.01 for muon and sgd, 0.001 for adamw"
    )
    final_lr_ratio: Probability = Field(
        0.01, description="final learning rate as a fraction of the peak (cosine schedule)"
    )
    momentum: Decay = Field(
        0.937, description="momentum of sgd, beta1 of adamw; muon: of what is not orthogonalized"
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0005, description="weight decay of convolution and linear weights"
    )
    warmup_epochs: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        3.0,
        description="length of the linear learning rate warm-up, epochs; at most a third of the "
        "training",
    )
    ema_decay: Decay = Field(
        0.9998, description="decay of the exponential moving average of the weights; 0: no EMA"
    )
    max_grad_norm: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        10.0, description="gradients are clipped to this norm; 0: no clipping"
    )
    freeze_epochs: Epochs = Field(0, description="number of first epochs with a frozen backbone")
    patience: Epochs = Field(
        0, description="stop after this many evaluations without improvement; 0: never"
    )
    select: Literal["best", "last"] | None = Field(
        None,
        description="weights in best.pt: best (of the evaluation with the highest AP) or last (of "
        "the last epoch); null: best, but last in comparisons without data.test",
    )
    eval_every: EpochCount | None = Field(
        None, description="number of epochs between evaluations; null: a tenth of `epochs`"
    )
    save_minutes: Annotated[float, Field(gt=0, le=100_000)] = Field(
        5.0, description="minutes between saves of last.pt within an epoch"
    )
    log: list[LoggerName] = Field(
        [], description="also log to these: tensorboard, mlflow, wandb; docs/training.md"
    )
    tensorboard: bool = Field(False, description="the same as tensorboard in `log`")
    compile: bool = Field(False, description="train with torch.compile")

    @property
    def epoch_count(self) -> int:
        """`epochs`, when it is no longer auto."""
        return _settled(self.epochs)

    @property
    def images_per_pass(self) -> int:
        """`batch_size`, when it is no longer auto."""
        return _settled(self.batch_size)

    @property
    def images_per_step(self) -> int:
        """Images that the optimizer takes a step for."""
        return self.images_per_pass * self.accumulate

    @property
    def loggers(self) -> list[LoggerName]:
        """The experiment trackers to log to, each once."""
        first: list[LoggerName] = ["tensorboard"] if self.tensorboard else []
        return list(dict.fromkeys([*first, *self.log]))


class EvalConfig(ConfigSection):
    batch_size: BatchSize = Field(32, description="number of images per forward pass")
    score: Probability = Field(
        0.001, description="minimum score of the detections that the metrics count"
    )
    nms_iou: Probability = Field(
        0.5, description="NMS drops the weaker of two boxes of a class above this IoU"
    )
    vote_iou: Probability = Field(
        0.6,
        description="box voting: average each box with those of its class above this IoU; 1: plain "
        "NMS",
    )
    max_detections: Detections = Field(
        100, description="maximum number of detections per image (100 in COCO)"
    )


class PredictConfig(ConfigSection):
    score: Probability = Field(0.25, description="minimum score of the detections that are shown")
    nms_iou: Probability = Field(
        0.45, description="NMS drops the weaker of two boxes of a class above this IoU"
    )
    vote_iou: Probability = Field(
        0.6,
        description="box voting: average each box with those of its class above this IoU; 1: plain "
        "NMS",
    )
    max_detections: Detections = Field(300, description="maximum number of detections per image")


Size = Annotated[tuple[int, int], BeforeValidator(_parse_size)]
Name = Annotated[Words, AfterValidator(_check_name)]
Backend = Literal["torch", "compile", "onnxruntime", "openvino", "ncnn", "litert", "auto"]
Device = Annotated[str, AfterValidator(_check_device)]


class Config(ConfigSection):
    """The configuration of one experiment."""

    name: Name = Field(
        "run",
        description="name of the run's folder in `output`; default: the name of the configuration "
        "file",
    )
    phi: int | str | dict[str, Any] | None = Field(
        "none",
        description="attention block: none, a name, a number from 0 to 4, {name: cbam, reduction: "
        "8}, or one per site {feat1: eca, ...}",
    )
    attention: AttentionConfig = Field(default_factory=AttentionConfig)
    input_size: Size = Field(
        (416, 416),
        description="size of the network's input, pixels: an integer or [height, width], multiples "
        "of 32",
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="fp32, bf16, fp16, int8 (needs backend=openvino); auto: bf16 if the hardware "
        "supports it, else fp32",
    )
    backend: Backend = Field(
        "torch",
        description="torch, compile, onnxruntime, openvino, ncnn or litert runs a trained network; "
        "auto: the fastest on this machine, measured at startup",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="number of CPU threads; 0: PyTorch's default"
    )
    seed: Seed = Field(
        0, description="seed of the initial weights, the order of the data and the augmentation"
    )
    weights: Words | None = Field(
        None,
        description="pretrained weights: .pt of this project, Darknet .weights, or .pth of a "
        "reference implementation; or the address of one (https://..., perhaps with #sha256=...), "
        "or the name of public weights, such as yolov4-tiny.conv.29",
    )
    cfg: Words | None = Field(
        None,
        description="the .cfg of Darknet weights, with the .names beside it; null: those next to "
        "the weights",
    )
    output: Words = Field("runs", description="folder of all runs")
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
