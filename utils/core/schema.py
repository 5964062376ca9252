"""The fields of a configuration: type, default and one-line description.

`python train.py --explain` prints them. Loading, inheritance and overrides: `utils.core.config`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

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

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _parse_size(value: Any) -> Any:
    """416 -> (416, 416); both sides must be multiples of 32, the largest stride of the network."""
    size = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or not all(type(side) is int and side >= 32 and side % 32 == 0 for side in size):
        raise ValueError(
            "expected an integer or [height, width], multiples of 32 (the stride of the last map), "
            f"got {value}"
        )
    return tuple(size)


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
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        expects_bool = cls.model_fields[str(info.field_name)].annotation is bool
        if isinstance(value, bool) and not expects_bool:
            raise ValueError(f"expected no true or false here, got {str(value).lower()}")
        return value


class AttentionConfig(ConfigSection):
    at: list[str] = Field(
        ["feat1", "feat2", "upsample"],
        description="sites that carry the block of `phi`; `python -m nets` lists all sites",
    )
    init: Literal["paper", "identity"] = Field(
        "paper",
        description="paper: as published; identity: every block starts as x -> x and so keeps the "
        "outputs of pretrained weights",
    )


class ModelConfig(ConfigSection):
    anchors: (
        Literal["auto"]
        | Annotated[list[tuple[Positive, Positive]], Field(min_length=6, max_length=6)]
    ) = Field(
        "auto",
        description="six [width, height] in input pixels, smallest first; auto: k-means on the "
        "training boxes",
    )
    anchor_masks: tuple[tuple[int, int, int], tuple[int, int, int]] = Field(
        ((3, 4, 5), (0, 1, 2)),
        description="indices of the anchors of the stride 32 head and of the stride 16 head",
    )
    new_coords: bool = Field(
        True,
        description="Darknet's box coder; true: (2 sigmoid)^2 * anchor, bounded; false: exp * "
        "anchor, which Darknet's published weights need",
    )
    scale_x_y: Positive | None = Field(
        None,
        description="factor that stretches the range of box centers; null: 2 with new_coords, else "
        "1.05",
    )

    @field_validator("anchor_masks")
    @classmethod
    def _check_indices(cls, masks: tuple) -> tuple:
        if not all(0 <= index < 6 for mask in masks for index in mask):
            raise ValueError("expected anchor indices 0 to 5")
        return masks


class DataConfig(ConfigSection):
    format: Literal["shapes", "voc", "coco", "yolo"] = Field(
        "shapes", description="voc, coco, yolo, or shapes: images drawn by this program"
    )
    root: str = Field("", description="folder of the dataset, relative to the working directory")
    train: str = Field(
        "train",
        description="training split; voc: a list in ImageSets/Main, or several "
        "(2007/trainval+2012/trainval)",
    )
    val: str = Field("val", description="validation split, named like `train`")
    classes: list[str] | str | None = Field(
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
    cache_gb: Positive = Field(
        4.0,
        description="memory or disk space for that cache, GiB; images beyond it are decoded every "
        "epoch",
    )
    gpu_cache_gb: NonNegative | None = Field(
        None,
        description="GPU memory for the decoded training images, GiB; null: half of what is free",
    )
    shapes_train: Count = Field(480, description="shapes: number of training images")
    shapes_val: Count = Field(120, description="shapes: number of validation images")
    shapes_seed: int = Field(
        0, description="shapes: seed of the images, independent of the training seed"
    )


class AugmentConfig(ConfigSection):
    mosaic: Probability = Field(0.5, description="share of images that are mosaics of four, 0 to 1")
    close_mosaic: Annotated[int, Field(ge=0)] = Field(
        5, description="number of final epochs without mosaic and mixup"
    )
    mixup: Probability = Field(
        0.0, description="share of images that are blended with another one, 0 to 1"
    )
    fliplr: Probability = Field(0.5, description="probability of a left-right flip")
    flipud: Probability = Field(
        0.0,
        description="probability of an up-down flip; set 0.5 if images have no upright direction",
    )
    scale: tuple[Positive, Positive] = Field(
        (0.6, 1.5), description="smallest and largest zoom factor"
    )
    translate: NonNegative = Field(
        0.1, description="maximum translation, as a fraction of the image's width and height"
    )
    degrees: NonNegative = Field(0.0, description="maximum rotation angle, degrees")
    shear: NonNegative = Field(0.0, description="maximum shear angle, degrees")
    hsv_h: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.015, description="maximum hue shift, as a fraction of the color circle, 0 to 0.5"
    )
    hsv_s: Probability = Field(0.5, description="maximum relative change of saturation, 0 to 1")
    hsv_v: Probability = Field(0.4, description="maximum relative change of brightness, 0 to 1")

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
    anchor_ratio: Annotated[float, Field(gt=1)] = Field(
        4.0, description="ratio, aligned: maximum ratio between the sides of object and anchor"
    )
    anchor_iou: Probability = Field(
        0.2, description="iou: minimum IoU of object and anchor shapes (Darknet's iou_thresh)"
    )
    top_k: Count = Field(10, description="aligned: number of anchors assigned to each object")
    box: NonNegative = Field(4.0, description="weight of the CIoU box loss")
    objectness: NonNegative = Field(1.5, description="weight of the objectness loss")
    cls: NonNegative = Field(1.2, description="weight of the classification loss")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="e in the class targets y(1 - e) + e / number of classes"
    )


class TrainConfig(ConfigSection):
    epochs: Count = Field(100, description="number of passes over the training images")
    batch_size: Count = Field(16, description="number of images per step")
    workers: Annotated[int, Field(ge=0)] = Field(
        0,
        description="threads that decode images; 0: two while the cache is being filled, then one",
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd (with Nesterov momentum) or adamw"
    )
    lr: Positive | None = Field(
        None, description="peak learning rate; null: 0.01 for sgd, 0.001 for adamw"
    )
    final_lr_ratio: Probability = Field(
        0.01, description="final learning rate as a fraction of the peak (cosine schedule)"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.937, description="momentum of sgd, beta1 of adamw"
    )
    weight_decay: NonNegative = Field(
        0.0005, description="weight decay of convolution and linear weights"
    )
    warmup_epochs: NonNegative = Field(
        3.0, description="length of the linear learning rate warm-up, epochs"
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9998, description="decay of the exponential moving average of the weights; 0: no EMA"
    )
    max_grad_norm: NonNegative = Field(
        10.0, description="gradients are clipped to this norm; 0: no clipping"
    )
    freeze_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="number of first epochs with a frozen backbone"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="stop after this many evaluations without improvement; 0: never"
    )
    eval_every: Count | None = Field(
        None, description="number of epochs between evaluations; null: a tenth of `epochs`"
    )
    save_minutes: Positive = Field(
        5.0, description="minutes between saves of last.pt within an epoch"
    )
    tensorboard: bool = Field(
        False, description="also write TensorBoard logs; needs `pip install tensorboard`"
    )
    compile: bool = Field(False, description="train with torch.compile")


class EvalConfig(ConfigSection):
    batch_size: Count = Field(32, description="number of images per forward pass")
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
    max_detections: Count = Field(
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
    max_detections: Count = Field(300, description="maximum number of detections per image")


Size = Annotated[tuple[int, int], BeforeValidator(_parse_size)]


class Config(ConfigSection):
    """The configuration of one experiment."""

    name: str = Field(
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
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:1 or mps",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="fp32, bf16, fp16, int8 (needs backend=openvino); auto: bf16 if the hardware "
        "supports it, else fp32",
    )
    backend: Literal["torch", "compile", "onnxruntime", "openvino", "auto"] = Field(
        "torch",
        description="torch, compile, onnxruntime or openvino runs a trained network; auto: the "
        "fastest on this machine, measured at startup",
    )
    threads: Annotated[int, Field(ge=0)] = Field(
        0, description="number of CPU threads; 0: PyTorch's default"
    )
    seed: int = Field(
        0, description="seed of the initial weights, the order of the data and the augmentation"
    )
    weights: str | None = Field(
        None,
        description="pretrained weights: .pt of this project, Darknet .weights, or .pth of a "
        "reference implementation",
    )
    output: str = Field("runs", description="folder of all runs")
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
