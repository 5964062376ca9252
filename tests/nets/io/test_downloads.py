"""Weights from the web: whole and checked, or not at all; afterwards without a network."""

import errno
import hashlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pytest

from nets import load_model
from nets.io import checkpoints, downloads
from nets.io.downloads import PUBLIC, Source, is_download, locate_weights
from nets.io.weights import read_weights
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.outputs import WriteError
from utils.core.schema import Config
from utils.engine.runs import create_run, find_weights

# The first layer of a network: 32 filters of 3x3x3, each with bias, scale, mean and variance
LAYER = np.array([0, 2, 5], "<i4").tobytes() + bytes(8) + np.ones(32 * 31, "<f4").tobytes()
SHA256 = hashlib.sha256(LAYER).hexdigest()

Reply = tuple[int, dict[str, object], bytes]  # status, headers, content
REPLIES: dict[str, Reply] = {
    "/layer.conv.1": (200, {"Content-Length": len(LAYER)}, LAYER),
    "/no length.conv.1": (200, {}, LAYER),
    "/moved.conv.1": (302, {"Location": "/layer.conv.1", "Content-Length": 0}, b""),
    "/round.conv.1": (302, {"Location": "/round.conv.1", "Content-Length": 0}, b""),
    "/secret.conv.1": (302, {"Location": "file:///etc/passwd"}, b""),
    "/away.conv.1": (302, {"Location": "http://[::/a.conv.1"}, b""),
    "/broken.conv.1": (200, {"Content-Length": len(LAYER) + 1}, LAYER),
    "/short.conv.1": (200, {"Content-Length": len(LAYER) - 1}, LAYER),
    "/huge.conv.1": (200, {"Content-Length": 2**40}, b""),
    "/failing.conv.1": (503, {"Content-Length": 0}, b""),
    "/page.pt": (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>"),
    "/text.pt": (200, {"Content-Type": "text/plain"}, b"<html>"),
    "/net.weights": (200, {"Content-Length": len(LAYER)}, LAYER),
    "/net.cfg": (200, {}, b"[net]"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/stalled"):
            self.server.released.wait()  # type: ignore[attr-defined]
        path = self.path.replace("%20", " ").partition("?")[0]
        status, headers, content = REPLIES.get(path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.released = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and an empty working directory."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def cut() -> None:
        def connect(*args: object) -> None:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

        monkeypatch.setattr(socket, "create_connection", connect)

    return cut


@pytest.mark.parametrize(
    "name",
    [
        "layer.conv.1",
        f"layer.conv.1#sha256={SHA256.upper()}",
        "moved.conv.1",
        "no length.conv.1",
    ],
)
def test_a_download_is_kept_for_the_next_time(
    server: str, name: str, cache: Path, no_network: Callable[[], None]
):
    path = locate_weights(f"{server}/{name}")
    assert path.parent == cache and path.read_bytes() == LAYER and is_download(path)
    no_network()
    assert find_weights(f"{server}/{name}") == path == read_weights(f"{server}/{name}").path
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.conv.1?token=secret", "{server}/gone.conv.1: not found (404): check the address"),
        ("failing.conv.1", "{server}/failing.conv.1: the server answered 503 Service Unavail"),
        ("round.conv.1", "the server answered 302 The HTTP server returned a redirect error"),
        ("secret.conv.1", "302 Found - Redirection to url 'file:///etc/passwd' is not allowed"),
        ("away.conv.1", "cannot be downloaded: Invalid IPv6 URL"),
        ("broken.conv.1", "{server}/broken.conv.1: broke off after 3,988 of 3,989 bytes"),
        ("short.conv.1", "{server}/short.conv.1: not used: not a Darknet weights file"),
        ("huge.conv.1", "1,099,511,627,776 bytes, expected at most 4,294,967,296"),
        ("page.pt", "{server}/page.pt: is a web page; expected the address that the file itself"),
        ("text.pt", "not used: not readable as PyTorch weights: damaged"),
        (f"layer.conv.1#sha256={64 * '0'}", f"not used: its SHA-256 is {SHA256}, expected 000"),
        ("stalled.conv.1", "cannot be downloaded: no answer for 0.1 s; without a network, put"),
    ],
)
def test_what_is_broken_or_wrong_is_not_kept(
    server: str, name: str, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    with pytest.raises(UserError) as error:
        locate_weights(f"{server}/{name}")
    text = str(error.value)
    assert message.format(server=server) in text
    assert "\n" not in text and "token" not in text
    assert not cache.exists() or not list(cache.iterdir())


def test_without_a_network_the_error_says_what_to_do(no_network: Callable[[], None], cache: Path):
    no_network()
    with pytest.raises(UserError) as error:
        read_weights("yolov4-tiny.weights")
    assert str(error.value) == (
        f"{PUBLIC['yolov4-tiny.weights'].url}: cannot be downloaded: Network is unreachable; "
        f"without a network, put the file at {cache / 'yolov4-tiny.weights'}"
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/a.pt", "ftp://host/a.pt: expected a file, or an address with http:// or htt"),
        ("https:///a.pt", "expected a file, or an address with http:// or https://"),
        ("https://[host/a.pt", "https://[host/a.pt: not an address: Invalid IPv6 URL"),
        ("https://host:99999/a.pt", "not an address: Port out of range 0-65535"),
        ("https://me:secret@host/a.pt", "https://host: the address has a password"),
        ("https://host/?id=5", "https://host/: expected the address of a file .pt, .pth, .onnx"),
        ("https://host/a.zip", "expected the address of a file .pt, .pth"),
        ("https://host/a.pt#sha256=12", "#sha256=12: expected #sha256= and 64 hexadecimal digits"),
        ("yolov4-tinny.weights", "no such file; did you mean 'yolov4-tiny.weights'?"),
        ("yolov4_tiny_voc_SE", "no such file; did you mean 'yolov4_tiny_weights_voc_SE.pth'?"),
    ],
)
def test_what_is_no_address_or_name_of_weights(address: str, message: str):
    with pytest.raises(UserError) as error:
        load_model(address)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("start", "end", "allowed"),
    [
        ("http", "https", True),
        ("https", "https", True),
        ("https", "http", False),
        ("http", "ftp", False),
    ],
)
def test_a_redirect_keeps_its_protection(start: str, end: str, allowed: bool):
    request = Request(f"{start}://host/a.pt")
    arguments = (io.BytesIO(), 302, "Found", HTTPMessage(), f"{end}://host/b.pt")
    redirects = downloads._Redirects()
    if allowed:
        assert redirects.redirect_request(request, *arguments).full_url == f"{end}://host/b.pt"
    else:
        with pytest.raises(URLError, match=f"redirected to {end}://"):
            redirects.redirect_request(request, *arguments)


def test_names_of_two_addresses_differ_and_stay_in_the_folder():
    names = [
        downloads._parse_address(f"https://host/{path}").name
        for path in (
            "a/best.pt",
            "b/best.pt",
            "b/best.pt?v=2",
            "..%2F..%2Fa b.pt",
            f"{'x' * 999}.pt",
        )
    ]
    assert len(set(names)) == 5
    assert all(name.endswith(".pt") and "/" not in name and len(name) < 120 for name in names)


def test_public_weights_have_the_size_that_is_known(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    known = Source(f"{server}/layer.conv.1", "public.conv.1", len(LAYER), SHA256)
    monkeypatch.setitem(PUBLIC, known.name, known)
    cache.mkdir(parents=True)
    (cache / known.name).write_bytes(b"of another program")
    assert find_weights(known.name).read_bytes() == LAYER
    monkeypatch.setitem(PUBLIC, "larger.conv.1", Source(known.url, "larger.conv.1", 9999))
    with pytest.raises(UserError, match="3,988 bytes on the server, expected 9,999"):
        read_weights("larger.conv.1")
    Path(known.name).write_bytes(LAYER)  # a file of the user comes first
    assert locate_weights(known.name) == Path(known.name)


def test_the_description_of_darknet_weights_comes_with_them(
    server: str, cache: Path, capsys: pytest.CaptureFixture[str]
):
    path = locate_weights(f"{server}/net.weights")
    assert path.with_suffix(".cfg").read_text() == "[net]"
    assert not path.with_suffix(".names").exists()
    assert f"{server}/net.names: not found; Darknet's own is assumed" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def read(*args: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_read", read)
    with pytest.raises(WriteError, match="no space left on device: free some space"):
        locate_weights(f"{server}/layer.conv.1")
    assert not list(cache.iterdir())


def test_a_run_records_the_address(
    server: str, tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = build_model(Config(phi="se"), 1)
    checkpoints.save(tmp_path / "a.pt", checkpoints.describe(network, Config(phi="se"), ["bolt"]))
    content = (tmp_path / "a.pt").read_bytes()
    monkeypatch.setitem(REPLIES, "/a.pt", (200, {"Content-Length": len(content)}, content))
    address = f"{server}/a.pt#sha256={hashlib.sha256(content).hexdigest()}"
    run = create_run(tiny(f"weights={address}"))
    assert load_config(run / "config.yaml").weights == address
    assert load_model(address).names == ("bolt",)
