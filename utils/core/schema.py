"""Every configuration field: its type, default, unit and one-line meaning.

`python train.py --explain` prints this file's fields. Loading, inheritance and overrides are in `utils.core.config`.
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

# Keys that had another name before; checkpoints written then are still read
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


def _size(value: Any) -> Any:
    """416 -> (416, 416); sizes must be multiples of 32, the network's largest stride."""
    pair = (
        (value, value)
        if isinstance(value, int)
        else tuple(value)
        if isinstance(value, (list, tuple))
        else value
    )
    sides = isinstance(pair, tuple) and len(pair) == 2 and all(type(side) is int for side in pair)
    if not sides or any(side < 32 or side % 32 for side in pair):
        raise ValueError(
            f"expected an integer or [height, width], multiples of 32 (stride of the last map), got {value}"
        )
    return pair


class ConfigSection(BaseModel):
    """A part of the configuration: unknown keys are refused, values are not coerced silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_set(cls, values: Any) -> Any:
        """`train:` with every key below it commented out."""
        return {} if values is None else values

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_from_a_bool(cls, value: Any, info: ValidationInfo) -> Any:
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError(f"expected no true or false here, got {str(value).lower()}")
        return value


class AttentionConfig(ConfigSection):
    at: list[str] = Field(
        ["feat1", "feat2", "upsample"],
        description="sites that carry the block of `phi`; `python -m nets` lists them",
    )
    init: Literal["paper", "identity"] = Field(
        "paper",
        description="identity: the block starts as x -> x, so that pretrained weights keep their outputs",
    )


class ModelConfig(ConfigSection):
    anchors: (
        Literal["auto"]
        | Annotated[list[tuple[Positive, Positive]], Field(min_length=6, max_length=6)]
    ) = Field(
        "auto",
        description="six [width, height] in input pixels, small to large; auto: k-means on the training boxes",
    )
    anchor_masks: tuple[tuple[int, int, int], tuple[int, int, int]] = Field(
        ((3, 4, 5), (0, 1, 2)),
        description="anchors of the stride 32 head and of the stride 16 head",
    )
    new_coords: bool = Field(
        True,
        description="Darknet's decoding: true: (2 sigmoid)^2 * anchor, bounded; false: exp, for pretrained weights",
    )
    scale_x_y: Positive | None = Field(
        None, description="stretch of the center; none: 2 with new_coords, else 1.05"
    )

    @field_validator("anchor_masks")
    @classmethod
    def _known_anchors(cls, masks: tuple) -> tuple:
        if not all(0 <= index < 6 for mask in masks for index in mask):
            raise ValueError("expected anchor indices 0 to 5")
        return masks


class DataConfig(ConfigSection):
    format: Literal["shapes", "voc", "coco", "yolo"] = Field(
        "shapes", description="layout of the dataset"
    )
    root: str = Field("", description="folder of the dataset; relative to the working directory")
    train: str = Field(
        "train",
        description="training split: voc: a list in ImageSets/Main (several: 2007/trainval+...)",
    )
    val: str = Field("val", description="validation split, named like `train`")
    classes: list[str] | str | None = Field(
        None,
        description="class names, or a text file with one a line; none: read from the data where it names them",
    )
    download: bool = Field(
        False, description="voc: fetch VOC2007/2012 through torchvision when it is missing"
    )
    cache: Literal["ram", "disk", "none"] = Field(
        "ram", description="where decoded, letterboxed images are kept"
    )
    cache_gb: Positive = Field(
        4.0, description="most memory or disk for that cache, GiB; what exceeds it is decoded anew"
    )
    gpu_cache_gb: NonNegative | None = Field(
        None,
        description="most GPU memory for the decoded training images, GiB; none: half of what is free",
    )
    shapes_train: Count = Field(480, description="shapes: number of training images")
    shapes_val: Count = Field(120, description="shapes: number of validation images")
    shapes_seed: int = Field(
        0, description="shapes: seed of the drawing, apart from the training seed"
    )


class AugmentConfig(ConfigSection):
    mosaic: Probability = Field(0.5, description="share of images made of four")
    close_mosaic: Annotated[int, Field(ge=0)] = Field(
        5, description="last epochs without mosaic and mixup"
    )
    mixup: Probability = Field(0.0, description="share of images blended with another")
    fliplr: Probability = Field(0.5, description="left-right flip")
    flipud: Probability = Field(
        0.0, description="up-down flip; set 0.5 where up and down mean nothing"
    )
    scale: tuple[Positive, Positive] = Field((0.6, 1.5), description="smallest and largest zoom")
    translate: NonNegative = Field(0.1, description="largest shift, share of the image's side")
    degrees: NonNegative = Field(0.0, description="largest rotation, degrees")
    shear: NonNegative = Field(0.0, description="largest shear, degrees")
    hsv_h: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.015, description="largest hue turn, share of the circle"
    )
    hsv_s: Probability = Field(0.5, description="largest relative change of saturation")
    hsv_v: Probability = Field(0.4, description="largest relative change of brightness")

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"expected [smallest, largest], got {list(scale)}")
        return scale


class LossConfig(ConfigSection):
    assign: Literal["best", "iou", "ratio", "aligned"] = Field(
        "ratio", description="which anchors learn an object: docs/training.md compares them"
    )
    anchor_ratio: Annotated[float, Field(gt=1)] = Field(
        4.0, description="ratio, aligned: largest side ratio"
    )
    anchor_iou: Probability = Field(
        0.2, description="iou: Darknet's iou_thresh of anchor and object shapes"
    )
    top_k: Count = Field(10, description="aligned: anchors kept for an object")
    box: NonNegative = Field(4.0, description="weight of the CIoU loss")
    objectness: NonNegative = Field(1.5, description="weight of the objectness loss")
    cls: NonNegative = Field(1.2, description="weight of the class loss")
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="class targets y(1-e) + e/classes"
    )


class TrainConfig(ConfigSection):
    epochs: Count = Field(100, description="passes over the training images")
    batch_size: Count = Field(16, description="images a step")
    workers: Annotated[int, Field(ge=0)] = Field(
        0, description="threads that decode images; 0: two while the cache is filled, then one"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd is Nesterov")
    lr: Positive | None = Field(
        None, description="peak learning rate; none: 0.01 for sgd, 0.001 for adamw"
    )
    final_lr_ratio: Probability = Field(
        0.01, description="last learning rate, share of the peak (cosine)"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.937, description="momentum, or beta1 of adamw"
    )
    weight_decay: NonNegative = Field(0.0005, description="on convolution and linear weights only")
    warmup_epochs: NonNegative = Field(3.0, description="linear warm-up, epochs")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9998, description="decay of the weight average; 0: none"
    )
    max_grad_norm: NonNegative = Field(10.0, description="largest gradient norm; 0: no clipping")
    freeze_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="first epochs with the backbone frozen"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="stop after so many evaluations without gain; 0: never"
    )
    eval_every: Count | None = Field(
        None, description="epochs between evaluations; none: a tenth of `epochs`"
    )
    save_minutes: Positive = Field(
        5.0, description="also save last.pt inside an epoch after so many minutes"
    )
    tensorboard: bool = Field(
        False, description="also write TensorBoard event files; needs `pip install tensorboard`"
    )
    compile: bool = Field(False, description="torch.compile the network")


class EvalConfig(ConfigSection):
    batch_size: Count = Field(32, description="images a forward pass")
    score: Probability = Field(0.001, description="lowest score that is kept for the metrics")
    nms_iou: Probability = Field(
        0.5, description="IoU above which the weaker box of a class is dropped"
    )
    vote_iou: Probability = Field(
        0.6, description="boxes kept are averaged with those above this IoU; 1: plain NMS"
    )
    max_detections: Count = Field(100, description="boxes kept an image (COCO counts 100)")


class PredictConfig(ConfigSection):
    score: Probability = Field(0.25, description="lowest score that is shown")
    nms_iou: Probability = Field(
        0.45, description="IoU above which the weaker box of a class is dropped"
    )
    vote_iou: Probability = Field(
        0.6, description="boxes kept are averaged with those above this IoU; 1: plain NMS"
    )
    max_detections: Count = Field(300, description="boxes kept an image")


Size = Annotated[tuple[int, int], BeforeValidator(_size)]


class Config(ConfigSection):
    """One experiment."""

    name: str = Field(
        "run", description="the run's folder below `output`; taken from the file's name"
    )
    phi: int | str | dict[str, Any] | None = Field(
        "none",
        description="attention: none, a name, a number 0 to 4, {name: cbam, reduction: 8} or {feat1: eca, ...}",
    )
    attention: AttentionConfig = Field(default_factory=AttentionConfig)
    input_size: Size = Field(
        (416, 416), description="integer or [height, width], pixels, multiples of 32"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, mps"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="auto: bf16 where the CPU or GPU computes in it, else fp32; int8: backend=openvino",
    )
    backend: Literal["torch", "compile", "onnxruntime", "openvino", "auto"] = Field(
        "torch",
        description="what runs a trained network; auto: the one that is fastest here, measured at the start",
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0: PyTorch's choice")
    seed: int = Field(0, description="seeds the weights, the data order and the augmentation")
    weights: str | None = Field(
        None, description="pretrained weights: ours (.pt), Darknet .weights, a reference .pth"
    )
    output: str = Field("runs", description="folder of the runs")
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
