"""What exported files say about the steps around the network."""

import json

from nets.io.client_metadata import client_metadata
from utils.core.config import make_config

CONFIG = make_config({"input_size": [64, 96], "predict": {"score": 0.3, "vote_iou": 0.7}})


def test_the_numbers_are_those_of_the_configuration() -> None:
    texts = client_metadata(CONFIG, ["cat", "Hündin"])
    assert texts["names"] == '["cat", "Hündin"]'
    assert (texts["imgsz"], texts["stride"], texts["task"]) == ("[64, 96]", "32", "detect")
    limits = json.loads(texts["postprocessing"])
    assert CONFIG.predict.model_dump().items() <= limits.items()
    assert json.loads(texts["preprocessing"])["pad_value"] == 114


def test_a_file_with_nms_leaves_no_voting_to_the_caller() -> None:
    limits = json.loads(client_metadata(CONFIG, ["cat"], has_nms=True)["postprocessing"])
    assert limits["vote_iou"] == 1 and "voters" not in limits
    assert limits["score"] == 0.3
