"""The web page and its HTTP interface."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nets import load_model
from utils.core.errors import UserError
from utils.engine.demo import ALL_SITES, BOXES, HEATMAPS, Demo, build_app, serve
from utils.engine.experiment import Result

pytest.importorskip("gradio", reason="needs gradio: pip install -r requirements-predict.txt")
SCORE = 0.001  # a network of two epochs is not sure of much


@pytest.fixture(scope="module")
def demo(trained: Result) -> Demo:
    return Demo([str(trained.run)], device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("demo") / "noise.png"
    Image.fromarray(noise).save(path)
    return path


def test_the_address_answers_as_predict_does(demo: Demo, trained: Result, image: Path):
    from starlette.testclient import TestClient

    with TestClient(build_app(demo)) as client:
        answer = client.post(f"/detect?score={SCORE}", content=image.read_bytes())
        assert client.get("/").status_code == 200
    expected = load_model(trained.run, {"predict.score": SCORE}, device="cpu")(image).to_json()
    assert answer.json() == {**expected, "image": None} and expected["detections"]


@pytest.mark.parametrize(
    ("query", "content", "message"),
    [
        ("", b"no image", "cannot decode image request"),
        ("?score=2", b"", "predict.score: expected 0 to 1, got 2"),
        ("?weights=other", b"", "weights=other: expected one of"),
    ],
)
def test_a_bad_request_is_refused(
    demo: Demo, image: Path, query: str, content: bytes, message: str
):
    from starlette.testclient import TestClient

    with TestClient(build_app(demo)) as client:
        answer = client.post(f"/detect{query}", content=content or image.read_bytes())
    assert answer.status_code == 400 and message in answer.json()["detail"]


def test_boxes_or_heatmaps_of_an_image(demo: Demo, image: Path):
    boxes, rows = demo.detect_image(str(image), demo.first, SCORE, BOXES, ALL_SITES)
    detections = demo.detector(demo.first, SCORE)(image)
    assert np.array_equal(boxes, detections.plot()) and len(rows) == len(detections) > 0
    sheet, again = demo.detect_image(str(image), demo.first, SCORE, HEATMAPS, "feat1")
    assert again == rows and sheet.shape != boxes.shape
    assert demo.detect_image(None, demo.first, SCORE, BOXES, ALL_SITES) == (None, [])
    with pytest.raises(UserError, match=r"head8: no such site with model\.heads=2"):
        demo.detect_image(str(image), demo.first, SCORE, HEATMAPS, "head8")


def test_a_score_changes_no_other_request(demo: Demo):
    before = demo.detector(demo.first).config
    assert demo.detector(demo.first, 0.9).config.predict.score == 0.9
    assert demo.detector(demo.first).config == before


def test_a_port_in_use_is_named(demo: Demo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^--host 127.0.0.1 --port {port}: .*in use"):
            serve(demo, "127.0.0.1", port)


SERVER = """
import asyncio, socket
from utils.core.cli import run_command
from utils.engine.demo import run_server

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("asked", flush=True)
        await receive()
        await asyncio.sleep(60)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
run_command(lambda: run_server(app, listener))
"""


def test_ctrl_c_ends_it_at_once_though_a_page_is_open():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert process.stdout.readline() == "asked\n"
            process.send_signal(signal.SIGINT)
            try:
                _, error = process.communicate(timeout=20)
            finally:
                process.kill()
    assert (process.returncode, error) == (130, "interrupted\n")


@pytest.fixture
def address(demo: Demo) -> Iterator[str]:
    """The page, served by a thread."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(build_app(demo), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield "http://{}:{}".format(*listener.getsockname())
        server.should_exit = True
        thread.join()


@pytest.mark.slow
def test_a_browser_shows_the_result(address: str, image: Path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs Chromium and ChromeDriver")
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(address)
        script = "return [...document.querySelectorAll(arguments[0])].map(x => x.naturalWidth)"
        upload = _until(lambda: browser.find_elements("css selector", "input[type=file]"))[0]
        upload.send_keys(str(image))

        def shown():  # the image itself, and the result with its boxes
            widths = browser.execute_script(script, "img[src*='/file=']")
            return len(widths) > 1 and all(widths) and widths

        assert _until(shown)[1:] == [100]


def _until(look, seconds: float = 60.0):
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing after {seconds} s")
