"""Detection on videos, streams and cameras."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.streaming import detect_stream
from utils.core.files import claimed_outputs
from utils.core.progress import progress_bar
from utils.engine.outputs import Summary, json_list, output_file, video_target
from utils.visualization.video import STREAM_TIMEOUT, VideoSink, open_video
from utils.visualization.video_pipeline import process_video


def predict_video(
    detector: Detector,
    source: str | int | Path,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    show: bool = False,
    timeout: float = STREAM_TIMEOUT,
) -> Summary:
    """Detect on a video and write it with boxes.

    Args:
        detector: the detector to run.
        source: a video file, the address of a stream, or the number of a camera.
        out: video file, or a folder for "<name>.mp4"; None: `runs/predict`, `runs/predict-2`, ...
        json_path: file for a list with one entry per frame, with "image": "<video>#<frame>" and
            "frame": index from 0.
        show: show the frames in a window; q or Esc quits.
        timeout: seconds to wait for a stream to open, and for each of its frames.

    Raises:
        UserError: the source cannot be opened, or an output cannot be written or is the source.
    """
    with ExitStack() as stack:
        stack.enter_context(claimed_outputs(("--json", json_path), ("--out", output_file(out))))
        video = stack.enter_context(open_video(source, timeout))
        if video.note:
            tqdm.write(f"note: {video.note}", file=sys.stderr)
        path = video_target(out, video.name)
        add_json = stack.enter_context(json_list(json_path))
        sink = stack.enter_context(VideoSink(path, video.fps, (video.width, video.height)))
        bar = stack.enter_context(
            progress_bar(desc=video.name, total=video.frame_count, unit="frame", leave=True)
        )

        def on_frame(index: int, detections: Detections) -> None:
            named = replace(detections, image=f"{video.name}#{index}")
            add_json({**named.to_json(), "frame": index})
            bar.update()

        # streaming works a few frames behind, which is too late for a camera
        detect = partial(map, detector) if video.is_camera else partial(detect_stream, detector)
        result = process_video(video, sink, detect, on_frame, window=show)
    if video.frame_count and result.frames < 0.9 * video.frame_count and not result.stopped:
        tqdm.write(
            f"note: {video.name}: {result.frames} of {video.frame_count} frames could be read; "
            "is it cut off?",
            file=sys.stderr,
        )
    return Summary(
        unit="frames",
        done=result.frames,
        seconds=result.seconds,
        counts=result.counts,
        out=path,
        stopped=result.stopped,
    )
