"""Detect objects in images with ncnn, as `predict.py` does."""

import argparse
import json
from pathlib import Path

import cv2
import ncnn
import numpy as np


def load(path: str) -> tuple:
    """The metadata; and the network: from an image (3, H, W) to boxes (A, 4), scores (A, C)."""
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(path) or net.load_model(str(Path(path).with_suffix(".bin"))):
        raise SystemExit(f"{path}: not readable with the .bin file next to it")

    def network(image: np.ndarray) -> list[np.ndarray]:
        image = np.ascontiguousarray(image)  # ncnn only refers to it
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image))
        return [np.array(extractor.extract(name)[1]) for name in ("boxes", "scores")]

    return json.loads(Path(path).with_suffix(".metadata.json").read_text("utf-8")), network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="the .param file of `export.py --format ncnn`")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--score", type=float, help="minimum score; default: the model's")
    parser.add_argument("--out", type=Path, help="existing folder for the images with boxes")
    args = parser.parse_args()
    metadata, network = load(args.model)
    names, size, limits = (json.loads(metadata[k]) for k in ("names", "imgsz", "postprocessing"))
    limits["score"] = limits["score"] if args.score is None else args.score
    for path in args.images:
        image = cv2.imread(path)  # BGR, upright
        if image is None:
            raise SystemExit(f"{path}: not an image that OpenCV reads")
        canvas, factors, offsets = letterbox(image[:, :, ::-1], *size)
        boxes, scores = network(np.float32(canvas.transpose(2, 0, 1)) / 255)
        boxes, scores, labels = select(boxes, scores, limits)
        boxes = np.clip((boxes - offsets) / factors, 0, image.shape[1::-1] * 2)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)  # the others lie in the padding
        print(f"{path}: {inside.sum()} objects")
        for box, score, label in zip(boxes[inside], scores[inside], labels[inside], strict=True):
            print(f"{score:.4f} {' '.join(f'{side:.2f}' for side in box)} {names[label]}")
            corners = np.rint(box).astype(int).tolist()
            cv2.rectangle(image, corners[:2], corners[2:], (0, 200, 0), 2)
            cv2.putText(image, names[label], corners[:2], cv2.FONT_HERSHEY_PLAIN, 1, (0, 0, 200))
        if args.out and not cv2.imwrite(str(args.out / Path(path).name), image):
            raise SystemExit(f"{args.out}: cannot write there")


def letterbox(image: np.ndarray, input_height: int, input_width: int) -> tuple[np.ndarray, ...]:
    """The network's input, and factors and offsets (x, y, x, y) from image to input pixels."""
    height, width = image.shape[:2]
    scale = min(input_height / height, input_width / width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if 2 * new_height > height and 2 * new_width > width:
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    else:
        image = shrink(shrink(image.swapaxes(0, 1), new_width).swapaxes(0, 1), new_height)
    top, left = (input_height - new_height) // 2, (input_width - new_width) // 2
    canvas = np.full((input_height, input_width, 3), 114, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = image
    factors = np.array([new_width / width, new_height / height] * 2, np.float32)
    return canvas, factors, np.array([left, top, left, top], np.float32)


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """Scale the first axis, bilinear with antialiasing, in PyTorch's 16-bit fixed point."""
    ratio = len(image) / size
    distance = (np.arange(size)[:, None] + 0.5) * ratio - np.arange(len(image)) - 0.5
    weights = np.maximum(0, 1 - np.abs(distance) / max(1, ratio))
    weights /= weights.sum(1, keepdims=True)
    unit = 2 ** min(22, np.floor(np.log2(32767.5 / weights.max())))
    weights = np.floor(weights * unit + 0.5) / unit
    return np.floor(np.tensordot(weights, np.float64(image), 1) + 0.5)


def select(boxes: np.ndarray, scores: np.ndarray, limits: dict) -> tuple[np.ndarray, ...]:
    """NMS within each class, and box voting; returns boxes, scores and labels, best first."""
    row, label = np.nonzero(scores > limits["score"])
    order = np.argsort(-scores[row, label], kind="stable")
    boxes, scores, label = boxes[row[order]], scores[row, label][order], label[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    alive, kept = np.ones(len(boxes), bool), np.zeros(len(boxes), bool)
    voted = boxes.copy()
    for i in range(len(boxes)):
        if not alive[i] or kept.sum() == limits["max_detections"]:
            continue
        corners = np.minimum(boxes[i, 2:], boxes[:, 2:]) - np.maximum(boxes[i, :2], boxes[:, :2])
        shared = corners.clip(0).prod(1) * (label == label[i])
        iou = shared / np.maximum(area[i] + area - shared, 1e-30)
        alive &= iou <= limits["nms_iou"]
        weights = scores * iou**2 * (iou > limits["vote_iou"])
        weights[limits["voters"] :] = 0
        weights[i] = scores[i]  # also of a box without area, or that is no voter
        kept[i], voted[i] = True, weights @ boxes / weights.sum()
    return voted[kept], scores[kept], label[kept]


if __name__ == "__main__":
    main()
