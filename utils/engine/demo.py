"""The web page of `demo.py`, made with Gradio, and its HTTP interface."""

import copy
import functools
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from utils.core.config import update_config
from utils.core.errors import UserError, require_package
from utils.core.images import decode_image, read_image
from utils.engine.detectors import open_detector
from utils.engine.explanation import explain, parse_focus
from utils.engine.runs import all_weights, find_weights
from utils.engine.video_prediction import predict_video

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks

TITLE = "YOLOv4-tiny"
BOXES, HEATMAPS = "boxes", "what the network looks at"
ALL_SITES = "all"
TABLE = ("class", "score", "x1", "y1", "x2", "y2")
BUTTONS = ["download", "fullscreen"]  # no upload to other sites
KEPT = (3600, 3600)  # seconds between two cleanings of uploads, and the age that is kept


class Demo:
    """The detectors behind the page; each is loaded when it is first used.

    Args:
        weights: files or runs to choose from; None: all in `runs/`.
        device: device to run on; None: the run's own.
        backend: inference backend; None: the run's own.

    Attributes:
        files: name shown -> weights file.

    Raises:
        UserError: there are no such weights.
    """

    def __init__(
        self,
        weights: Sequence[str] | None = None,
        device: str | None = None,
        backend: str | None = None,
    ) -> None:
        paths = [find_weights(name) for name in weights] if weights else all_weights()
        self.files = {str(path): path for path in paths}
        self.first = next(iter(self.files))
        self._options = {"device": device, "backend": backend}
        self._results = tempfile.TemporaryDirectory(prefix="demo-")  # removed when the process ends
        self._detectors: dict[str, Detector] = {}
        self._lock = threading.Lock()  # one image at a time: the threads of PyTorch are shared
        self.detector(self.first)  # an error is told before there is a page

    def detector(self, name: str, score: float | None = None) -> Detector:
        """Return the detector of some weights, with another minimum score.

        Raises:
            UserError: the weights are not offered, or the score is not in 0..1.
        """
        if name not in self.files:
            raise UserError(f"weights={name}: expected one of: {', '.join(self.files)}")
        if name not in self._detectors:
            detector = open_detector(self.files[name], None, **self._options)
            detector(np.zeros((32, 32, 3), np.uint8))  # builds the backend, which copies share
            self._detectors[name] = detector
        if score is None:
            return self._detectors[name]
        changed = copy.copy(self._detectors[name])
        changed.config = update_config(changed.config, {"predict.score": score})
        return changed

    def detect_bytes(self, content: bytes, name: str, score: float | None) -> dict[str, Any]:
        """Detect in an encoded image.

        Returns:
            `Detections.to_json()`.

        Raises:
            UserError: it is not an image, the weights are unknown, or the score is not in 0..1.
        """
        image, _ = decode_image(content, "request")
        with self._lock:
            return self.detector(name or self.first, score)(image).to_json()

    def detect_image(
        self, path: str | None, name: str, score: float, shown: str, site: str
    ) -> tuple[np.ndarray | None, list[list[Any]]]:
        """Detect in an image file.

        Args:
            path: the file; None: there is none.
            name: weights.
            score: minimum score, 0..1.
            shown: `BOXES` or `HEATMAPS`.
            site: for heatmaps: the only site, or `ALL_SITES`.

        Returns:
            The image to show, RGB uint8 `(h, w, 3)`, and a row per detection, see `TABLE`.
        """
        if not path:
            return None, []
        image = read_image(path)
        with self._lock:
            detector = self.detector(name, score)
            if shown == BOXES:
                detections = detector(image)
                return detections.plot(image), _rows(detections)
            focus = parse_focus(detector, None if site == ALL_SITES else site)
            explanation = explain(detector, image, focus, Path(path).name)
            return explanation.overview, _rows(explanation.detections)

    def detect_video(self, path: str | None, name: str, score: float) -> str | None:
        """Detect in a video file; return the path of a new one with boxes."""
        if not path:
            return None
        out = Path(tempfile.mkdtemp(dir=self._results.name), f"{Path(path).stem}.mp4")
        with self._lock:
            predict_video(self.detector(name, score), path, out)
        return str(out)


def _rows(detections: Detections) -> list[list[Any]]:
    entries = detections.to_json()["detections"]
    return [[entry["name"], entry["score"], *entry["box"]] for entry in entries]


def build_page(demo: Demo) -> "Blocks":
    """Build the page.

    Raises:
        UserError: Gradio is not installed.
    """
    gradio = require_package("gradio", "demo.py")

    def reported(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except UserError as error:
                raise gradio.Error(str(error)) from None

        return run

    first = demo.detector(demo.first)
    sites = [ALL_SITES, *first.network.sites]
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=KEPT) as page:
        gradio.Markdown(f"# {TITLE}")
        with gradio.Row():
            weights = gradio.Dropdown(list(demo.files), value=demo.first, label="weights")
            score = gradio.Slider(
                0.01, 1, value=first.config.predict.score, step=0.01, label="minimum score"
            )
        with gradio.Tab("image"):
            with gradio.Row():
                shown = gradio.Radio([BOXES, HEATMAPS], value=BOXES, label="show")
                site = gradio.Dropdown(sites, value=ALL_SITES, label="site")
            with gradio.Row():
                image = gradio.Image(
                    type="filepath", label="image", sources=["upload", "clipboard"]
                )
                result = gradio.Image(label="result", format="png", buttons=BUTTONS)
            table = gradio.Dataframe(headers=list(TABLE), label="detections")
            gradio.on(
                [image.change, weights.change, score.release, shown.change, site.change],
                reported(demo.detect_image),
                [image, weights, score, shown, site],
                [result, table],
                api_name="image",
                concurrency_limit=1,
            )
        with gradio.Tab("video"), gradio.Row():
            video = gradio.Video(label="video", sources=["upload"])
            out = gradio.Video(label="result")
            video.upload(
                reported(demo.detect_video), [video, weights, score], out, api_name="video"
            )
    return page


def build_app(demo: Demo) -> "FastAPI":
    """The page at `/`, and `POST /detect`, which takes an image file and returns its detections.

    Raises:
        UserError: Gradio is not installed.
    """
    page = build_page(demo)
    # they come with Gradio
    from fastapi import FastAPI, HTTPException, Request
    from gradio import mount_gradio_app
    from starlette.concurrency import run_in_threadpool

    app = FastAPI(title=TITLE)

    @app.post("/detect")
    async def detect(request: Request, weights: str = "", score: float | None = None) -> Any:
        content = await request.body()
        try:
            return await run_in_threadpool(demo.detect_bytes, content, weights, score)
        except UserError as error:
            raise HTTPException(400, str(error)) from None

    return mount_gradio_app(app, page, path="/")


def serve(demo: Demo, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        demo: the detectors.
        host: address to listen at.
        port: port to listen at; 0: any that is free.

    Raises:
        UserError: Gradio is not installed, or the address cannot be listened at.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    app = build_app(demo)
    with _listening(host, port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"http://{host}:{port}  (Ctrl-C ends it)")
        print(f"curl --data-binary @street.jpg 'http://{host}:{port}/detect?score=0.3'")
        run_server(app, listener)


def run_server(app: Any, listener: socket.socket) -> None:
    """Answer requests until a signal ends the process.

    Args:
        app: an ASGI application.
        listener: the socket to listen at.
    """
    import uvicorn  # comes with Gradio

    class Server(uvicorn.Server):
        """Ends at once: a page in a browser keeps a connection open for as long as it is shown."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of requests cut off

    Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--host {host} --port {port}: {reason}") from None
