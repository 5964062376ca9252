"""Detection on videos, streams and cameras."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.streaming import detect_stream
from utils.core.errors import UserError, without_login
from utils.core.outputs import claimed_outputs
from utils.core.progress import progress_bar
from utils.engine.outputs import Summary, json_list, new_output_folder, output_file, video_target
from utils.engine.tracking import CountedDetections, draw_followed, make_follower, parse_line
from utils.visualization.video import (
    RECONNECT,
    STREAM_TIMEOUT,
    VideoSink,
    VideoSource,
    check_video_file,
    is_live,
    open_video,
)
from utils.visualization.video_pipeline import PredictFrames, VideoResult, process_video

Source = str | int | Path
COMPLETE = 0.9  # share of the frames that must be read; some containers estimate their number


@dataclass(frozen=True)
class VideoOptions:
    """How a video is read and processed.

    Attributes:
        timeout: seconds to wait for a stream to open, and for each of its frames.
        reconnect: seconds to go on trying when a stream is lost; 0: not at all.
        every: only every such frame goes through the detector; those in between show its boxes.
        track: name of a tracker that gives objects an id; None: no tracking.
        line: "x1,y1,x2,y2" in pixels, whose crossings are counted; needs `track`.
    """

    timeout: float = STREAM_TIMEOUT
    reconnect: float = RECONNECT
    every: int = 1
    track: str | None = None
    line: str | None = None

    def predict_frames(self, detector: Detector, video: VideoSource) -> PredictFrames:
        """How the frames of a video become detections.

        Raises:
            UserError: tracking is not possible as asked.
        """
        # streaming works a few frames behind, which is too late for a camera
        one_by_one = video.is_camera or self.every > 1
        detect = partial(map, detector) if one_by_one else partial(detect_stream, detector)
        if self.track is None:
            return detect
        line = None if self.line is None else parse_line(self.line)
        fps = video.fps / self.every
        follow = make_follower(self.track, line, fps, video.width, video.height)

        def predict(frames: Iterable[np.ndarray]) -> Iterator[Detections]:
            return map(follow, detect(frames))

        return predict


def predict_video(
    detector: Detector,
    source: Source | Sequence[Source],
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
    options: VideoOptions | None = None,
) -> Summary:
    """Detect on videos, one after another, and write them with boxes.

    Args:
        detector: the detector to run.
        source: a video file, the address of a stream, or the number of a camera; or several files,
            of which the last may be a stream or camera.
        out: folder for "<name>.mp4", or for one video a file; None: `runs/predict`,
            `runs/predict-2`, ...
        json_path: file for a list with one entry per frame that went through the detector, with
            "image": "<video>#<frame>" and "frame": index from 0.
        show: show the frames in a window; q or Esc quits.
        options: how they are read and processed.

    Raises:
        UserError: a source cannot be opened or was lost, or an output cannot be written or is a
            source.
    """
    sources = [source] if isinstance(source, (str, int, Path)) else list(source)
    options = options or VideoOptions()
    if options.line is not None and options.track is None:
        raise UserError("--line: only objects that are followed are counted: add --track bytetrack")
    summary = Summary("frames")
    with ExitStack() as stack:
        stack.enter_context(claimed_outputs(("--json", json_path), ("--out", output_file(out))))
        if len(sources) > 1:
            _check_several(sources, out)
            out = new_output_folder() if out is None else out
        add_json = stack.enter_context(json_list(json_path))
        prediction = _Prediction(detector, options, add_json, show, summary)
        for item in sources:
            prediction.add(item, out, None if len(sources) == 1 else without_login(str(item)))
            if summary.stopped:
                break
    if len(sources) > 1:
        summary.out = None if out is None else Path(out)
    return summary


def _check_several(sources: Sequence[Source], out: str | Path | None) -> None:
    if output_file(out) is not None:
        raise UserError(f"--out {out} is a file name, but there are {len(sources)} videos")
    for item in sources[:-1]:
        if is_live(item):
            raise UserError(
                f"--source {without_login(str(item))}: a stream or camera does not end, so it "
                "must be the last; run one command for each"
            )
    for item in sources:
        if not is_live(item):
            check_video_file(str(item))


def _tell(line: str) -> None:
    tqdm.write(f"note: {line}", file=sys.stderr)


@dataclass
class _Prediction:
    """What the videos of one command share."""

    detector: Detector
    options: VideoOptions
    add_json: Callable[[dict[str, Any]], None]
    show: bool
    summary: Summary

    def add(self, source: Source, out: str | Path | None, title: str | None) -> None:
        """Process one video; its frames are named by `title`, or by the video's name."""
        with ExitStack() as stack:
            video = stack.enter_context(
                open_video(source, self.options.timeout, self.options.reconnect, _tell)
            )
            if video.note:
                _tell(video.note)
            predict = self.options.predict_frames(self.detector, video)
            self.summary.out = video_target(out, video.name)
            size = (video.width, video.height)
            sink = stack.enter_context(VideoSink(self.summary.out, video.fps, size))
            bar = stack.enter_context(
                progress_bar(desc=video.name, total=video.frame_count, unit="frame", leave=True)
            )
            crossed: dict[str, int] = {}
            followed: set[int] = set()

            def on_frame(index: int, detections: Detections) -> None:
                named = replace(detections, image=f"{title or video.name}#{index}")
                self.add_json({**named.to_json(), "frame": index})
                bar.update(index + 1 - bar.n)
                if detections.ids is not None:
                    followed.update(detections.ids[detections.ids >= 0].tolist())
                if isinstance(detections, CountedDetections):
                    crossed.update(detections.counts())

            every = self.options.every
            result = process_video(
                video, sink, predict, on_frame, self.show, every, draw=draw_followed
            )
            bar.update(result.frames - bar.n)
        self.summary.crossed.update(crossed)
        if self.options.track is not None:
            self.summary.followed = (self.summary.followed or 0) + len(followed)
        self._finish(video, result)

    def _finish(self, video: VideoSource, result: VideoResult) -> None:
        """Add the result to the summary, and tell what was left out."""
        self.summary.done += result.frames
        self.summary.seconds += result.seconds
        self.summary.counts += result.counts
        self.summary.stopped = result.stopped
        if video.damaged:
            _tell(f"{video.name}: {video.damaged} damaged packets were left out")
        count = video.frame_count
        if count and result.frames < COMPLETE * count and not result.stopped:
            _tell(f"{video.name}: {result.frames} of {count} frames could be read; is it cut off?")
