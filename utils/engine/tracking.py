"""Objects followed through a video, and counted as they cross a line.

Both are done by libraries: `trackers` and `supervision`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections, draw_line
from utils.core.errors import UserError, nearest, require_package, shorten

TRACKERS = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}
FARTHEST = 1_000_000  # pixels: ends of a line may lie outside of the image
Line = tuple[int, int, int, int]
Follow = Callable[[Detections], Detections]


@dataclass(frozen=True)
class CountedDetections(Detections):
    """Detections, and how many objects have crossed a line until then.

    Attributes:
        line: x1, y1, x2, y2, pixels.
        crossed_in: objects that went to the right over a line drawn downwards, or up over one drawn
            from left to right.
        crossed_out: objects that went the other way.
    """

    line: Line = (0, 0, 0, 0)
    crossed_in: int = 0
    crossed_out: int = 0

    def counts(self) -> dict[str, int]:
        """Return how many objects have crossed the line, by direction."""
        return {"in": self.crossed_in, "out": self.crossed_out}

    def to_json(self) -> dict[str, Any]:
        """Return the frame's entry, with the counts until then as "line"."""
        return {**super().to_json(), "line": self.counts()}


def parse_line(text: str) -> Line:
    """Parse "x1,y1,x2,y2".

    Raises:
        UserError: it is not four integers, one is too large, or the points are the same.
    """
    try:
        x1, y1, x2, y2 = (int(word) for word in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = 0
    is_far = max(map(abs, (x1, y1, x2, y2))) > FARTHEST
    if is_far or (x1, y1) == (x2, y2):
        raise UserError(
            f"--line: expected two points in pixels, x1,y1,x2,y2, got {shorten(text, quoted=True)}"
        )
    return x1, y1, x2, y2


def make_follower(tracker: str, line: Line | None, fps: float, width: int, height: int) -> Follow:
    """Return a function that adds ids to the detections of consecutive frames.

    Args:
        tracker: one of `TRACKERS`.
        line: count the objects that cross this line; its results are `CountedDetections`.
        fps: frames per second that the function is called for.
        width: width of a frame in pixels.
        height: height of a frame in pixels.

    Raises:
        UserError: there is no such tracker, or the line is outside of the image.
    """
    if tracker not in TRACKERS:
        raise UserError(f"--track: unknown tracker {shorten(tracker)}{nearest(tracker, TRACKERS)}")
    library = require_package("trackers", "--track")
    make = getattr(library, TRACKERS[tracker], None)
    if make is None:
        raise UserError(f"--track {tracker}: not in this version: pip install --upgrade trackers")
    add_ids = partial(_add_ids, make(frame_rate=fps))
    if line is None:
        return add_ids
    count = _line_counter(line, width, height)
    return lambda detections: count(add_ids(detections))


def _add_ids(tracker: Any, detections: Detections) -> Detections:
    boxes = detections.to_supervision()
    boxes.data["index"] = np.arange(len(detections))
    tracked = tracker.update(boxes)
    ids = np.full(len(detections), -1, np.int64)
    if len(tracked):  # in an order of its own
        ids[tracked.data["index"]] = tracked.tracker_id
    return replace(detections, ids=ids)


def _line_counter(line: Line, width: int, height: int) -> Follow:
    start, end = line[:2], line[2:]
    if not cv2.clipLine((0, 0, width, height), start, end)[0]:
        raise UserError(
            f"--line {','.join(map(str, line))}: outside of the image, {width}x{height} pixels"
        )
    supervision = require_package("supervision", "--line")
    zone = supervision.LineZone(supervision.Point(*start), supervision.Point(*end))

    def count(detections: Detections) -> Detections:
        zone.trigger(detections.select(np.asarray(detections.ids) >= 0).to_supervision())
        counts = {"crossed_in": zone.in_count, "crossed_out": zone.out_count}
        return CountedDetections(**vars(detections), line=line, **counts)

    return count


def draw_followed(image: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw detections, and the line if there is one, into a copy of an image."""
    drawn = draw_detections(image, detections)
    if not isinstance(detections, CountedDetections):
        return drawn
    text = f"in {detections.crossed_in} out {detections.crossed_out}"
    return draw_line(drawn, detections.line[:2], detections.line[2:], text)
