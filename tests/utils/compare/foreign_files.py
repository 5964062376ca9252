"""Files of other programs: objects, and detections near them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from utils.compare.analysis.comparison import Comparison
from utils.compare.foreign.coco_truth import read_truth
from utils.compare.foreign.trials import make_foreign_plan
from utils.compare.workflow import compare_detections

IDS = (5, 3, 12, 8, 1, 20, 7, 9)  # not in order
CATEGORIES = {1: "cell", 4: "nucleus", 7: "unused"}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def make_truth(generator: np.random.Generator) -> dict[str, Any]:
    images = []
    objects: list[dict[str, Any]] = []
    for number, image_id in enumerate(IDS):
        entry = {"id": image_id, "file_name": f"a/im_{number}.jpg", "width": 200, "height": 150}
        images.append({**entry, "video_id": number // 2})
        for _ in range(generator.integers(1, 6)):
            box = [*generator.uniform(0, 80, 2), *generator.uniform(5, 60, 2)]
            label, crowd = int(generator.choice([1, 4])), int(generator.random() < 0.1)
            number = len(objects) + 1
            objects.append({"image_id": image_id, "category_id": label, "bbox": box, "id": number})
            objects[-1].update(iscrowd=crowd, area=box[2] * box[3])
    categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    return {"images": images, "annotations": objects, "categories": categories}


def detect(
    truth: dict[str, Any], generator: np.random.Generator, noise: float
) -> list[dict[str, Any]]:
    """Boxes near the objects, many false ones with scores of two digits, some repeated."""
    entries = []
    for each in truth["annotations"] * 2:
        box = np.array(each["bbox"]) + generator.normal(0, noise, 4)
        box[2:] = np.maximum(box[2:], 1)
        label = each["category_id"] if generator.random() < 0.9 else 1
        entries.append((each["image_id"], label, box.tolist()))
    for _ in range(130):
        box = [*generator.uniform(-10, 150, 2), *generator.uniform(0, 50, 2)]
        entries.append((IDS[0], 4, box))
    detections = []
    for image, label, box in entries:
        score = round(float(generator.random()), 2)
        entry = {"image_id": image, "category_id": label, "bbox": box, "score": score}
        detections.append(entry)
    return detections


def run(folder: Path, **options: Any) -> Comparison:
    truth = read_truth(folder.parent / "instances.json", options.get("group"))
    plan = make_foreign_plan(str(folder), truth, out=str(folder.parent / "out"), **options)
    return compare_detections(plan, truth, ["python", "compare.py"])
