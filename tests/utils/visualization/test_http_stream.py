"""A broadcast over HTTP that breaks off and comes back, through the command line."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from utils.engine.experiment import Result
from utils.visualization.video import open_video

av = pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[3]
FPS = 25
SHOWN = 25  # frames of each connection
BRIGHT = (60, 200)  # of the first connection's frames, and of the later ones


class Broadcast(ThreadingHTTPServer):
    """MPEG-TS in real time: a second of it, then refusals, then another second, then refusals."""

    def __init__(self, refusals: int) -> None:
        self.requests, self.refusals = 0, refusals
        super().__init__(("127.0.0.1", 0), Viewer)
        self.address = f"http://me:secret@127.0.0.1:{self.server_port}/live"

    def __enter__(self) -> "Broadcast":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Viewer(BaseHTTPRequestHandler):
    server: Broadcast

    def do_GET(self) -> None:
        number, self.server.requests = self.server.requests, self.server.requests + 1
        if number not in (0, 1 + self.server.refusals):
            self.send_error(503)
            return
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            self.send_frames(BRIGHT[number > 0])

    def send_frames(self, brightness: int) -> None:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mpegts") as container:
            options = {"tune": "zerolatency", "preset": "ultrafast"}
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(SHOWN):
                image = np.full((48, 64, 3), brightness, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                self.wfile.write(buffer.getvalue())
                buffer.seek(0)
                buffer.truncate()
                time.sleep(1 / FPS)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_a_broadcast_that_comes_back_goes_on_in_the_recording(tmp_path: Path, trained: Result):
    words = ["--weights", str(trained.run / "best.pt"), "--out", "out.mp4", "--json", "x.json"]
    with Broadcast(refusals=3) as server:
        done = subprocess.run(
            [sys.executable, str(ROOT / "predict.py"), *words, "--source", server.address]
            + ["--timeout", "5", "--reconnect", "4"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and "secret" not in done.stderr
    assert "trying again for 4 s" in lines[0] and "back after" in lines[1]
    assert lines[-1].startswith("error: http://127.0.0.1:") and "not back within 4 s" in lines[-1]
    with open_video(tmp_path / "out.mp4") as video:
        frames = list(video.frames())
    seen = [round(float(image[40:, 50:].mean())) for image, _ in frames]
    assert abs(seen[0] - BRIGHT[0]) < 8 and abs(seen[-1] - BRIGHT[1]) < 8
    assert len(json.loads((tmp_path / "x.json").read_text())) == len(frames)
    steps = np.diff([seconds for _, seconds in frames])
    assert steps.min() > 0 and steps.max() > 0.3
